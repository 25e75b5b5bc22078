// SPDX-License-Identifier: Apache-2.0
#include "worker/model/device_layout.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/base/strings.h"
#include "worker/model/block_names.h"

namespace mft {

namespace {
constexpr int64_t kAlignment = 256;
constexpr const char* kOfBlocks = "layers.";
constexpr const char* kEmbeddings = "tok_embeddings.weight";

int64_t Aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

bool IsMatrix(const TensorShape& tensor) {
  return tensor.shape.size() == 2;
}

// A vector is one row.
int64_t RowsOf(const TensorShape& tensor) {
  return IsMatrix(tensor) ? tensor.shape[0] : 1;
}

ElementType TypeOf(const TensorShape& tensor, const DeviceTypes& types) {
  return IsQuantised(tensor, types) ? ElementType::kF8
         : IsMatrix(tensor)         ? types.matrices
                                    : ElementType::kF32;
}

int64_t ElementBytesOf(const TensorShape& tensor, const DeviceTypes& types) {
  return Aligned(RowsOf(tensor) * tensor.shape.back() * ElementBytes(TypeOf(tensor, types)));
}

int64_t ScaleBytes(const TensorShape& tensor) {
  return Aligned(tensor.shape[0] / kQuantBlockSize * ScaleStride(tensor.shape[1]) *
                 static_cast<int64_t>(sizeof(float)));
}
}  // namespace

bool IsQuantised(const TensorShape& tensor, const DeviceTypes& types) {
  return types.quantise && IsMatrix(tensor) && tensor.name.starts_with(kOfBlocks);
}

DeviceLayout::DeviceLayout(std::vector<TensorShape> tensors, const DeviceTypes& types)
    : types_(types) {
  for (TensorShape& tensor : tensors) {
    const bool quantised = IsQuantised(tensor, types);
    by_name_.emplace(tensor.name, places_.size());
    places_.push_back({.tensor = std::move(tensor), .begin = bytes_, .quantised = quantised});
    const TensorShape& placed = places_.back().tensor;
    bytes_ += ElementBytesOf(placed, types) + (quantised ? ScaleBytes(placed) : 0);
  }
}

View DeviceLayout::ViewOf(std::byte* memory, const Place& place) const {
  return TypedView(memory + place.begin,
                   RowsOf(place.tensor),
                   place.tensor.shape.back(),
                   TypeOf(place.tensor, types_));
}

QuantisedMat DeviceLayout::Quantised(std::byte* memory, const Place& place) const {
  const View data = ViewOf(memory, place);
  return {data,
          View{memory + place.begin + ElementBytesOf(place.tensor, types_),
               data.rows / kQuantBlockSize,
               data.cols / kQuantBlockSize,
               ScaleStride(data.cols),
               ElementType::kF32}};
}

FrozenMat DeviceLayout::Matrix(std::byte* memory, const std::string& name) const {
  const Place& place = places_[by_name_.at(name)];
  const View view = ViewOf(memory, place);
  if (place.quantised) {
    return {view, WeightFormat::kF8, view.rows, view.cols, Quantised(memory, place).scales};
  }
  const bool bf16 = view.type == ElementType::kBF16;
  return {view, bf16 ? WeightFormat::kBF16 : WeightFormat::kF32, view.rows, view.cols};
}

const float* DeviceLayout::Vector(std::byte* memory, const std::string& name) const {
  return ViewOf(memory, places_[by_name_.at(name)]).f32();
}

BlockWeights DeviceLayout::Block(std::byte* memory,
                                 const ModelParams& params,
                                 int64_t layer) const {
  BlockWeights block;
  FillBlock(
      block,
      params,
      layer,
      [&](const std::string& name) { return Matrix(memory, name); },
      [&](const std::string& name) { return Vector(memory, name); });
  return block;
}

HeadWeights DeviceLayout::Head(std::byte* memory, const ModelParams& params) const {
  HeadWeights head = {.embeddings = Matrix(memory, kEmbeddings),
                      .norm = Vector(memory, "norm.weight")};
  head.output = params.tied_embeddings ? head.embeddings : Matrix(memory, "output.weight");
  return head;
}

void DeviceLayout::Fill(std::byte* memory,
                        const KernelTable& kernels,
                        const DeviceFill& fill,
                        DeviceBuffer& wide) const {
  int64_t widest = 0;
  for (const Place& place : places_) {
    const int64_t elements = RowsOf(place.tensor) * place.tensor.shape.back();
    widest = std::max(widest, place.quantised ? elements * ElementBytes(types_.matrices) : 0);
  }
  if (widest > 0 && wide == nullptr) {
    wide = AllocateOnDevice(
        *kernels.memory, static_cast<size_t>(widest), "a weight that is to be quantised");
  }
  for (const Place& place : places_) {
    if (!place.quantised) {
      fill(place.tensor.name, ViewOf(memory, place));
      continue;
    }
    const QuantisedMat q = Quantised(memory, place);
    const View whole = TypedView(wide.get(), q.data.rows, q.data.cols, types_.matrices);
    fill(place.tensor.name, whole);
    kernels.quantise(q, whole);
  }
}

std::vector<TensorShape> TensorsOfBlock(const ModelParams& params, int64_t layer) {
  const std::string prefix = StrCat(kOfBlocks, layer, ".");
  std::vector<TensorShape> tensors;
  std::ranges::copy_if(
      ModelTensors(params),
      std::back_inserter(tensors),
      [&](const std::string& name) { return name.starts_with(prefix); },
      &TensorShape::name);
  return tensors;
}

std::vector<TensorShape> TensorsOfHead(const ModelParams& params) {
  std::vector<TensorShape> tensors;
  std::ranges::copy_if(
      ModelTensors(params),
      std::back_inserter(tensors),
      [](const std::string& name) { return !name.starts_with(kOfBlocks); },
      &TensorShape::name);
  return tensors;
}

}  // namespace mft
