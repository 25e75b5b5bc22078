// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "common/base/strings.h"
#include "common/dataset/batcher.h"
#include "common/dataset/pack.h"

namespace mft {
namespace {

// The pieces of one sample that carry loss.
Result<std::vector<Slice>> Pieces(const TokenCache& cache,
                                  uint32_t source,
                                  int64_t sample,
                                  int64_t seq_len) {
  MFT_ASSIGN_OR_RETURN(const SampleView view, cache.sample(source, sample));
  const int64_t rows = static_cast<int64_t>(view.tokens.size()) - 1;
  std::vector<Slice> pieces;
  for (int64_t row = 0; row < rows; row += seq_len) {
    const int64_t count = std::min(seq_len, rows - row);
    const int64_t loss = CountLoss(view.mask.data() + row + 1, count);
    if (loss > 0) {
      pieces.push_back(
          {.source = source, .sample = sample, .row = row, .rows = count, .loss_tokens = loss});
    }
  }
  return pieces;
}

}  // namespace

Result<std::vector<MicroBatch>> EvalBatches(
    const TokenCache& cache, int64_t seq_len, int64_t max_rows, int world_size, int rank) {
  if (seq_len < 1 || max_rows < 1 || world_size < 1 || rank < 0 || rank >= world_size) {
    return InvalidArgument(StrCat("evaluation with seq_len ",
                                  seq_len,
                                  ", ",
                                  max_rows,
                                  " rows, rank ",
                                  rank,
                                  " of ",
                                  world_size));
  }
  MFT_RETURN_IF_ERROR(cache.VerifyIndex());
  std::vector<MicroBatch> batches;
  Pack chunk;
  const auto finish = [&]() -> Status {
    if (!chunk.slices.empty() && chunk.number % world_size == rank) {
      MFT_RETURN_IF_ERROR(AppendRows(cache, chunk, batches.emplace_back()));
    }
    chunk = {.number = chunk.number + 1};
    return Status::Ok();
  };
  for (uint32_t source = 0; source < cache.sources().size(); ++source) {
    const SourceInfo& info = cache.sources()[source];
    const int64_t samples = info.kind == SourceKind::kEval ? info.samples : 0;
    for (int64_t sample = 0; sample < samples; ++sample) {
      MFT_ASSIGN_OR_RETURN(const std::vector<Slice> pieces, Pieces(cache, source, sample, seq_len));
      for (const Slice& piece : pieces) {
        if (!chunk.slices.empty() && chunk.rows + piece.rows > max_rows) {
          MFT_RETURN_IF_ERROR(finish());
        }
        chunk.Append(piece);
      }
    }
  }
  MFT_RETURN_IF_ERROR(finish());
  return batches;
}

}  // namespace mft
