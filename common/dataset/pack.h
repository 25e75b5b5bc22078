// SPDX-License-Identifier: Apache-2.0
// A pack: samples, or pieces of them, that are trained together as one sequence of at most seq_len
// rows. Row i of a sample is the pair (token i, token i + 1), so n tokens are n - 1 rows.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/dataset/batcher.h"
#include "common/dataset/token_cache.h"

namespace mft {

// A run of rows of one sample: one segment, with positions of its own.
struct Slice {
  uint32_t source = 0;
  int64_t sample = 0;
  int64_t row = 0;  // first row within the sample
  int64_t rows = 0;
  int64_t loss_tokens = 0;
};

struct Pack {
  int64_t number = 0;  // in the sequence of the job
  int64_t rows = 0;
  int64_t loss_tokens = 0;
  std::vector<Slice> slices;

  void Append(const Slice& slice) {
    slices.push_back(slice);
    rows += slice.rows;
    loss_tokens += slice.loss_tokens;
  }
};

// Nonzero bytes: of a sample's mask, the rows that carry loss.
int64_t CountLoss(const uint8_t* mask, int64_t rows);

// Copies the rows of `pack` behind those of `out`, with the mask in row_weight too. DATA_LOSS where
// the cache holds an id outside the vocabulary, or another number of loss rows than the slice says.
Status AppendRows(const TokenCache& cache, const Pack& pack, MicroBatch& out);

// An endless sequence of packs. Threads: one at a time.
class PackStream {
 public:
  virtual ~PackStream() = default;
  virtual Result<Pack> Next() = 0;
};

}  // namespace mft
