// SPDX-License-Identifier: Apache-2.0
// The lists of a chunk: where its rows are, which of them carry loss, and where kernels read that.
#include <stdexcept>

#include "common/base/strings.h"
#include "worker/model/segments.h"
#include "worker/model/transformer.h"

namespace mft {

// At most 32 bytes a row, and offsets of segments.
size_t Transformer::ListBytes(const TransformerOptions& options) {
  constexpr int64_t kRowBytes = 48;
  constexpr int64_t kOtherBytes = 1 << 16;
  return static_cast<size_t>(options.max_rows * kRowBytes + kOtherBytes);
}

Rows Transformer::Padded(const Rows& rows) {
  const auto count = static_cast<int64_t>(rows.tokens.size());
  const int64_t padded = (count + kRowMultiple - 1) / kRowMultiple * kRowMultiple;
  if (kernels_.memory == nullptr || padded == count) {
    return rows;
  }
  const auto copy = [](auto& to, const auto& from, size_t size) {
    to.assign(from.begin(), from.end());
    to.resize(size);
  };
  const auto size = static_cast<size_t>(padded);
  copy(padded_.tokens, rows.tokens, size);
  copy(padded_.targets, rows.targets, size);
  copy(padded_.row_weight, rows.row_weight, size);
  copy(padded_.cu_seqlens, rows.cu_seqlens, rows.cu_seqlens.size() + 1);
  padded_.cu_seqlens.back() = static_cast<int32_t>(padded);
  copy(padded_.pack, rows.pack, rows.pack.empty() ? 0 : rows.pack.size() + 1);
  copy(padded_.pack_row, rows.pack_row, rows.pack_row.empty() ? 0 : rows.pack_row.size() + 1);
  return {.tokens = padded_.tokens,
          .targets = padded_.targets,
          .row_weight = padded_.row_weight,
          .cu_seqlens = padded_.cu_seqlens,
          .pack = padded_.pack,
          .pack_row = padded_.pack_row,
          .step = rows.step};
}

void Transformer::SetTiles(std::span<const int32_t> cu_seqlens) {
  tiles_.clear();
  for (const auto [begin, end] : GroupSegments(
           cu_seqlens, TileRows(options_.max_rows, options_.max_positions, options_.sizes))) {
    Tile tile{.begin = cu_seqlens[begin], .rows = cu_seqlens[end] - cu_seqlens[begin]};
    for (size_t i = begin; i <= end; ++i) {
      tile.cu_seqlens.push_back(cu_seqlens[i] - cu_seqlens[begin]);
    }
    tile.kernel_cu_seqlens = batch_.Put(std::span<const int32_t>(tile.cu_seqlens));
    tiles_.push_back(std::move(tile));
  }
}

void Transformer::SetPositions(std::span<const int32_t> cu_seqlens) {
  const int64_t rows = cu_seqlens.back();
  if (rows > options_.max_rows) {
    throw std::length_error(StrCat("a batch of ", rows, " rows, planned were ", options_.max_rows));
  }
  for (size_t segment = 0; segment + 1 < cu_seqlens.size(); ++segment) {
    if (cu_seqlens[segment + 1] - cu_seqlens[segment] > options_.max_positions) {
      throw std::length_error(StrCat("a segment of ",
                                     cu_seqlens[segment + 1] - cu_seqlens[segment],
                                     " rows, planned were ",
                                     options_.max_positions));
    }
    for (int32_t row = cu_seqlens[segment]; row < cu_seqlens[segment + 1]; ++row) {
      position_[static_cast<size_t>(row)] = row - cu_seqlens[segment];
    }
  }
  kernel_position_ =
      batch_.Put(std::span<const int32_t>(position_).first(static_cast<size_t>(rows)));
}

void Transformer::SetDropout(const Rows& rows) {
  if (options_.dropout == 0) {
    return;
  }
  const size_t segments = rows.cu_seqlens.size() - 1;
  if (rows.pack.size() != segments || rows.pack_row.size() != segments) {
    throw std::invalid_argument("dropout needs the pack and row of each segment");
  }
  for (size_t s = 0; s < segments; ++s) {
    for (int32_t row = rows.cu_seqlens[s]; row < rows.cu_seqlens[s + 1]; ++row) {
      row_pack_[static_cast<size_t>(row)] = rows.pack[s];
      row_in_pack_[static_cast<size_t>(row)] = rows.pack_row[s] + row - rows.cu_seqlens[s];
    }
  }
  const size_t count = rows.tokens.size();
  dropout_.pack = batch_.Put(std::span<const int64_t>(row_pack_).first(count));
  dropout_.row = batch_.Put(std::span<const int32_t>(row_in_pack_).first(count));
  dropout_.host_pack = row_pack_.data();
  dropout_.host_row = row_in_pack_.data();
  dropout_.probability = options_.dropout;
  dropout_.step = rows.step;
}

Transformer::LossLists Transformer::CollectLossRows(const Rows& rows) const {
  LossLists lists;
  for (size_t i = 0; i < rows.tokens.size(); ++i) {
    if (rows.row_weight[i] != 0) {
      lists.index.push_back(static_cast<int32_t>(i));
      lists.target.push_back(rows.targets[i]);
      lists.weight.push_back(rows.row_weight[i]);
    }
  }
  return lists;
}

LossRows Transformer::PutLossRows(const LossLists& lists) {
  LossRows rows = lists.rows();
  rows.device_index = batch_.Put(rows.index);
  rows.device_target = batch_.Put(rows.target);
  rows.device_weight = batch_.Put(rows.weight);
  return rows;
}

}  // namespace mft
