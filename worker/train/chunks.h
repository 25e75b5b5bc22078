// SPDX-License-Identifier: Apache-2.0
// Execution size is the worker's own business (numerics.md): packed documents are independent, so a
// microbatch may be computed in pieces cut at their ends.
#pragma once

#include <cstdint>
#include <vector>

#include "common/dataset/batcher.h"

namespace mft {

// Rows of a chunk that is long enough for full speed of the CPU's matrix products.
inline constexpr int64_t kTargetChunkRows = 2048;

// The largest chunk of a job: a segment is never cut, and seq_len bounds it.
int64_t MaxChunkRows(int64_t seq_len, int64_t batch_size);

// Consecutive segments, in order, as many as fit into `max_rows`; a longer segment is a chunk of
// its own. Row weights are kept, so that sums over chunks are sums over the microbatch.
std::vector<MicroBatch> SplitIntoChunks(MicroBatch batch, int64_t max_rows);

}  // namespace mft
