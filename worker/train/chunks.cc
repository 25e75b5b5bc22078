// SPDX-License-Identifier: Apache-2.0
#include "worker/train/chunks.h"

#include <algorithm>
#include <utility>

namespace mft {

namespace {
template <typename T>
std::vector<T> Slice(const std::vector<T>& values, size_t begin, size_t end) {
  return {values.begin() + static_cast<std::ptrdiff_t>(begin),
          values.begin() + static_cast<std::ptrdiff_t>(end)};
}

// Segments [begin, end).
MicroBatch Chunk(const MicroBatch& batch, size_t begin, size_t end) {
  const auto first = static_cast<size_t>(batch.cu_seqlens[begin]);
  const auto last = static_cast<size_t>(batch.cu_seqlens[end]);
  MicroBatch chunk{.x = Slice(batch.x, first, last),
                   .y = Slice(batch.y, first, last),
                   .mask = Slice(batch.mask, first, last),
                   .row_weight = Slice(batch.row_weight, first, last),
                   .cu_seqlens = Slice(batch.cu_seqlens, begin, end + 1),
                   .pack = Slice(batch.pack, begin, end),
                   .pack_row = Slice(batch.pack_row, begin, end)};
  for (int32_t& offset : chunk.cu_seqlens) {
    offset -= static_cast<int32_t>(first);
  }
  chunk.loss_tokens =
      std::count_if(chunk.mask.begin(), chunk.mask.end(), [](uint8_t mask) { return mask != 0; });
  return chunk;
}
}  // namespace

int64_t MaxChunkRows(int64_t seq_len, int64_t batch_size) {
  return std::max(seq_len, std::min(seq_len * batch_size, kTargetChunkRows));
}

std::vector<MicroBatch> SplitIntoChunks(MicroBatch batch, int64_t max_rows) {
  std::vector<MicroBatch> chunks;
  if (static_cast<int64_t>(batch.x.size()) <= max_rows) {
    chunks.push_back(std::move(batch));
    return chunks;
  }
  const size_t segments = batch.cu_seqlens.size() - 1;
  for (size_t begin = 0; begin < segments;) {
    size_t end = begin + 1;
    while (end < segments && batch.cu_seqlens[end + 1] - batch.cu_seqlens[begin] <= max_rows) {
      ++end;
    }
    chunks.push_back(Chunk(batch, begin, end));
    begin = end;
  }
  return chunks;
}

}  // namespace mft
