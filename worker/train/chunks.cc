// SPDX-License-Identifier: Apache-2.0
#include "worker/train/chunks.h"

#include <algorithm>
#include <utility>

#include "worker/model/segments.h"

namespace mft {

namespace {
template <typename T>
std::vector<T> Slice(const std::vector<T>& values, size_t begin, size_t end) {
  return {values.begin() + static_cast<std::ptrdiff_t>(begin),
          values.begin() + static_cast<std::ptrdiff_t>(end)};
}

MicroBatch Chunk(const MicroBatch& batch, const SegmentRange& range) {
  const auto [begin, end] = range;
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

std::vector<MicroBatch> SplitIntoChunks(MicroBatch batch, int64_t max_rows) {
  std::vector<MicroBatch> chunks;
  if (static_cast<int64_t>(batch.x.size()) <= max_rows) {
    chunks.push_back(std::move(batch));
    return chunks;
  }
  for (const SegmentRange& range : GroupSegments(batch.cu_seqlens, max_rows)) {
    chunks.push_back(Chunk(batch, range));
  }
  return chunks;
}

int64_t LongestSegment(const TokenCache& cache, int64_t seq_len) {
  int64_t longest = 1;
  for (size_t source = 0; source < cache.sources().size(); ++source) {
    for (int64_t i = 0; i < cache.sources()[source].samples; ++i) {
      longest = std::max(longest, cache.info(source, i).length - 1);
    }
  }
  return std::min(longest, seq_len);
}

int64_t MeanSegment(const TokenCache& cache, int64_t seq_len) {
  int64_t segments = 0;
  int64_t rows = 0;
  for (const SourceInfo& source : cache.sources()) {
    if (source.kind != SourceKind::kEval) {
      segments += source.samples;
      rows += source.tokens - source.samples;
    }
  }
  return std::clamp<int64_t>(segments == 0 ? 1 : rows / segments, 1, seq_len);
}

}  // namespace mft
