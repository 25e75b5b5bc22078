// SPDX-License-Identifier: Apache-2.0
// Execution size is the worker's own business (numerics.md): packed documents are independent, so a
// microbatch may be computed in chunks (common/checkpoint/activation_plan.h) cut at their ends.
#pragma once

#include <cstdint>
#include <vector>

#include "common/dataset/batcher.h"
#include "common/dataset/token_cache.h"

namespace mft {

// Consecutive segments, in order, as many as fit into `max_rows`; a longer segment is a chunk of
// its own. Row weights are kept, so that sums over chunks are sums over the microbatch.
std::vector<MicroBatch> SplitIntoChunks(MicroBatch batch, int64_t max_rows);

// Rows of the longest segment that packs of `seq_len` rows of this data can hold, at least 1.
int64_t LongestSegment(const TokenCache& cache, int64_t seq_len);

// Rows of a segment of the training data, the mean, 1 to `seq_len`.
int64_t MeanSegment(const TokenCache& cache, int64_t seq_len);

}  // namespace mft
