// SPDX-License-Identifier: Apache-2.0
// All weights in a device's memory, in one piece, matrices in the type that its kernels multiply.
// Files go through the device's pinned buffers: while one part is on its way, the next is read.
#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/checkpoint/model_weights.h"
#include "worker/model/bf16.h"
#include "worker/model/block_names.h"
#include "worker/model/device_buffer.h"
#include "worker/model/tensor_values.h"
#include "worker/model/weight_source.h"

namespace mft {

namespace {
constexpr int64_t kAlignment = 256;
constexpr size_t kPieceElements = size_t{1} << 20;  // converted at a time
constexpr const char* kEmbeddings = "tok_embeddings.weight";

ElementType TypeOf(const TensorShape& tensor, ElementType matrices) {
  return tensor.shape.size() == 2 ? matrices : ElementType::kF32;
}

int64_t BytesOf(const TensorShape& tensor, ElementType matrices) {
  int64_t bytes = ElementBytes(TypeOf(tensor, matrices));
  for (const int64_t size : tensor.shape) {
    bytes *= size;
  }
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

class DeviceWeights final : public WeightSource {
 public:
  // Fills a tensor's memory, a vector's as one row.
  using Fill = std::function<void(const std::string& name, View to)>;

  DeviceWeights(const ModelParams& params, const KernelTable& kernels, const Fill& fill)
      : params_(params), bytes_(DeviceWeightBytes(params, kernels.type)) {
    memory_ = AllocateOnDevice(*kernels.memory, static_cast<size_t>(bytes_), "the model's weights");
    std::byte* at = memory_.get();
    for (const TensorShape& tensor : ModelTensors(params)) {
      const bool is_matrix = tensor.shape.size() == 2;
      const View view = TypedView(
          at, is_matrix ? tensor.shape[0] : 1, tensor.shape.back(), TypeOf(tensor, kernels.type));
      fill(tensor.name, view);
      views_.emplace(tensor.name, view);
      at += BytesOf(tensor, kernels.type);
    }
    MakeBlocks();
  }

  const ModelParams& params() const override { return params_; }
  BlockLease Acquire(int64_t block, Phase /*phase*/) override {
    return BlockLease(&blocks_[static_cast<size_t>(block)]);
  }
  const HeadWeights& head() const override { return head_; }
  int64_t resident_bytes() const override { return bytes_; }

 private:
  FrozenMat Matrix(const std::string& name) const {
    const View view = views_.at(name);
    const WeightFormat format =
        view.type == ElementType::kBF16 ? WeightFormat::kBF16 : WeightFormat::kF32;
    return {view, format, view.rows, view.cols};
  }
  const float* Vector(const std::string& name) const { return views_.at(name).f32(); }

  void MakeBlocks() {
    blocks_.resize(static_cast<size_t>(params_.n_layers));
    for (size_t layer = 0; layer < blocks_.size(); ++layer) {
      FillBlock(
          blocks_[layer],
          params_,
          static_cast<int64_t>(layer),
          [this](const std::string& name) { return Matrix(name); },
          [this](const std::string& name) { return Vector(name); });
    }
    head_ = {.embeddings = Matrix(kEmbeddings), .norm = Vector("norm.weight")};
    head_.output = params_.tied_embeddings ? head_.embeddings : Matrix("output.weight");
  }

  const ModelParams params_;
  const int64_t bytes_;
  DeviceBuffer memory_;
  std::map<std::string, View> views_;
  std::vector<BlockWeights> blocks_;
  HeadWeights head_;
};

// A file's tensor where it is to be, converted if it must be.
class FileReader {
 public:
  FileReader(const ModelWeights& files, const DeviceMemory& memory)
      : files_(files), memory_(memory) {}

  void Read(const std::string& name, View to) {
    const TensorEntry tensor = files_.InOrder(name, in_order_);
    const bool same = tensor.dtype == DType::kBF16  ? to.type == ElementType::kBF16
                      : tensor.dtype == DType::kF32 ? to.type == ElementType::kF32
                                                    : false;
    if (same) {
      memory_.upload(to.data, tensor.data.data(), tensor.data.size());
    } else {
      Convert(tensor, to);
    }
    DropPages(files_.At(name).data);
  }

 private:
  void Convert(const TensorEntry& tensor, View to) {
    const size_t width = DTypeSize(tensor.dtype);
    const size_t elements = tensor.data.size() / width;
    for (size_t begin = 0; begin < elements; begin += kPieceElements) {
      const size_t count = std::min(kPieceElements, elements - begin);
      TensorEntry piece = tensor;
      piece.data = tensor.data.subspan(begin * width, count * width);
      floats_.resize(count);
      ReadValues(piece, floats_);
      auto* const at =
          static_cast<std::byte*>(to.data) + begin * static_cast<size_t>(ElementBytes(to.type));
      if (to.type == ElementType::kF32) {
        memory_.upload(at, floats_.data(), count * sizeof(float));
        continue;
      }
      narrow_.resize(count);
      std::transform(floats_.begin(), floats_.end(), narrow_.begin(), Bf16Bits);
      memory_.upload(at, narrow_.data(), count * sizeof(uint16_t));
    }
  }

  const ModelWeights& files_;
  const DeviceMemory& memory_;
  std::vector<std::byte> in_order_;
  std::vector<float> floats_;
  std::vector<uint16_t> narrow_;
};
}  // namespace

int64_t DeviceWeightBytes(const ModelParams& params, ElementType matrices) {
  int64_t bytes = 0;
  for (const TensorShape& tensor : ModelTensors(params)) {
    bytes += BytesOf(tensor, matrices);
  }
  return bytes;
}

std::unique_ptr<WeightSource> MakeDeviceWeights(const ModelWeights& files,
                                                const KernelTable& kernels) {
  FileReader reader(files, *kernels.memory);
  return std::make_unique<DeviceWeights>(
      files.params(), kernels, [&](const std::string& name, View to) { reader.Read(name, to); });
}

std::unique_ptr<WeightSource> MakeRandomDeviceWeights(const ModelParams& params,
                                                      const KernelTable& kernels) {
  constexpr float kScale = 0.035F;  // a standard deviation of 0.02
  uint64_t tensor = 0;
  return std::make_unique<DeviceWeights>(
      params, kernels, [&](const std::string& /*name*/, View to) {
        if (to.type == ElementType::kF32 && to.rows == 1) {
          const std::vector<float> ones(static_cast<size_t>(to.cols), 1.0F);
          kernels.memory->upload(to.data, ones.data(), ones.size() * sizeof(float));
        } else {
          kernels.fill_random(to, ++tensor, kScale);
        }
      });
}

}  // namespace mft
