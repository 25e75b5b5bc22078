// SPDX-License-Identifier: Apache-2.0
#include "worker/model/block_image.h"

#include <algorithm>
#include <array>

#include "common/base/files.h"
#include "worker/model/block_names.h"
#include "worker/model/tensor_values.h"

namespace mft {

namespace {
constexpr size_t kLine = 64;
constexpr size_t kChunkElements = 2048;  // widened at a time
}  // namespace

BlockImages::BlockImages(const ModelWeights& files) : files_(files) {
  for (int64_t block = 0; block < params().n_layers; ++block) {
    layouts_.push_back(LayoutOf(block));
  }
}

BlockImages::Layout BlockImages::LayoutOf(int64_t block) const {
  Layout layout;
  const auto add = [&](const std::string& name, bool is_matrix) {
    const TensorEntry& tensor = files_.At(name);
    const size_t elements = tensor.data.size() / DTypeSize(tensor.dtype);
    const bool widened = !is_matrix || tensor.dtype == DType::kF16;
    const size_t size = widened ? elements * sizeof(float) : tensor.data.size();
    const auto begin = static_cast<size_t>(layout.bytes);
    layout.pieces.push_back({.tensor = &tensor, .begin = begin, .size = size, .widened = widened});
    layout.bytes += static_cast<int64_t>((size + kLine - 1) / kLine * kLine);
  };
  BlockWeights unused;
  FillBlock(
      unused,
      params(),
      block,
      [&](const std::string& name) {
        add(name, true);
        return FrozenMat{};
      },
      [&](const std::string& name) -> const float* {
        add(name, false);
        return nullptr;
      });
  return layout;
}

int64_t BlockImages::largest_bytes() const {
  int64_t largest = 0;
  for (const Layout& layout : layouts_) {
    largest = std::max(largest, layout.bytes);
  }
  return largest;
}

int64_t BlockImages::total_bytes() const {
  int64_t total = 0;
  for (const Layout& layout : layouts_) {
    total += layout.bytes;
  }
  return total;
}

void BlockImages::Write(int64_t block, size_t begin, size_t end, std::span<std::byte> image) const {
  for (const Piece& piece : layouts_[static_cast<size_t>(block)].pieces) {
    const size_t first = std::max(begin, piece.begin);
    const size_t last = std::min(end, piece.begin + piece.size);
    if (first < last) {
      WritePiece(piece, first - piece.begin, image.subspan(first, last - first));
    }
  }
}

void BlockImages::WritePiece(const Piece& piece, size_t begin, std::span<std::byte> to) const {
  const TensorEntry& tensor = *piece.tensor;
  if (!piece.widened) {
    files_.CopyBytes(tensor.name, begin, to);
    return;
  }
  const size_t element = DTypeSize(tensor.dtype);
  const size_t first = begin / sizeof(float);
  const std::span<float> values(reinterpret_cast<float*>(to.data()), to.size() / sizeof(float));
  std::array<std::byte, kChunkElements * sizeof(float)> narrow;
  for (size_t at = 0; at < values.size(); at += kChunkElements) {
    const auto chunk = values.subspan(at, std::min(kChunkElements, values.size() - at));
    const auto bytes = std::span(narrow).first(chunk.size() * element);
    files_.CopyBytes(tensor.name, (first + at) * element, bytes);
    ReadValues({.name = tensor.name, .dtype = tensor.dtype, .shape = {}, .data = bytes}, chunk);
  }
}

void BlockImages::DropFilePages(int64_t block) const {
  for (const Piece& piece : layouts_[static_cast<size_t>(block)].pieces) {
    DropPages(piece.tensor->data);
  }
}

BlockWeights BlockImages::WeightsIn(int64_t block, std::span<std::byte> image) const {
  BlockWeights weights;
  const Piece* piece = layouts_[static_cast<size_t>(block)].pieces.data();
  FillBlock(
      weights,
      params(),
      block,
      [&](const std::string& /*name*/) -> FrozenMat {
        const int64_t out = piece->tensor->shape[0];
        const int64_t in = piece->tensor->shape[1];
        const bool bf16 = !piece->widened && piece->tensor->dtype == DType::kBF16;
        void* const data = image.data() + (piece++)->begin;
        return {View{data, out, in, in, bf16 ? ElementType::kBF16 : ElementType::kF32},
                bf16 ? WeightFormat::kBF16 : WeightFormat::kF32,
                out,
                in};
      },
      [&](const std::string& /*name*/) {
        return reinterpret_cast<const float*>(image.data() + (piece++)->begin);
      });
  return weights;
}

}  // namespace mft
