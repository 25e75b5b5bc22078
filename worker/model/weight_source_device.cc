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
#include "common/base/strings.h"
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

struct Types {
  ElementType matrices = ElementType::kF32;
  bool quantise = false;
};

// Projections of blocks: what the base's products spend their time with.
bool IsQuantised(const TensorShape& tensor, const Types& types) {
  return types.quantise && tensor.shape.size() == 2 && tensor.name.starts_with("layers.");
}

ElementType TypeOf(const TensorShape& tensor, const Types& types) {
  return IsQuantised(tensor, types) ? ElementType::kF8
         : tensor.shape.size() == 2 ? types.matrices
                                    : ElementType::kF32;
}

int64_t Aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

int64_t ElementsOf(const TensorShape& tensor) {
  int64_t elements = 1;
  for (const int64_t size : tensor.shape) {
    elements *= size;
  }
  return elements;
}

int64_t ScaleBytes(const TensorShape& tensor, const Types& types) {
  return IsQuantised(tensor, types)
             ? Aligned(tensor.shape[0] / kQuantBlockSize * ScaleStride(tensor.shape[1]) *
                       static_cast<int64_t>(sizeof(float)))
             : 0;
}

int64_t BytesOf(const TensorShape& tensor, const Types& types) {
  return Aligned(ElementsOf(tensor) * ElementBytes(TypeOf(tensor, types))) +
         ScaleBytes(tensor, types);
}

class DeviceWeights final : public WeightSource {
 public:
  // Fills a tensor's memory, a vector's as one row.
  using Fill = std::function<void(const std::string& name, View to)>;

  DeviceWeights(const ModelParams& params,
                const KernelTable& kernels,
                bool quantise,
                const Fill& fill)
      : params_(params),
        is_quantised_(quantise),
        bytes_(DeviceWeightBytes(params, kernels.type, quantise)) {
    const Types types{kernels.type, quantise};
    memory_ = AllocateOnDevice(*kernels.memory, static_cast<size_t>(bytes_), "the model's weights");
    std::byte* at = memory_.get();
    for (const TensorShape& tensor : ModelTensors(params)) {
      const bool is_matrix = tensor.shape.size() == 2;
      const View view = TypedView(
          at, is_matrix ? tensor.shape[0] : 1, tensor.shape.back(), TypeOf(tensor, types));
      if (IsQuantised(tensor, types)) {
        const QuantisedMat q = QuantisedAt(view);
        FillQuantised(tensor, q, kernels, fill);
        scales_.emplace(tensor.name, q.scales);
      } else {
        fill(tensor.name, view);
      }
      views_.emplace(tensor.name, view);
      at += BytesOf(tensor, types);
    }
    wide_ = nullptr;
    MakeBlocks();
  }

  const ModelParams& params() const override { return params_; }
  BlockLease Acquire(int64_t block, Phase /*phase*/) override {
    return BlockLease(&blocks_[static_cast<size_t>(block)]);
  }
  const HeadWeights& head() const override { return head_; }
  int64_t resident_bytes() const override { return bytes_; }
  bool is_quantised() const override { return is_quantised_; }

 private:
  // The scales come after the elements.
  static QuantisedMat QuantisedAt(View data) {
    return {data,
            View{static_cast<std::byte*>(data.data) + Aligned(data.rows * data.cols),
                 data.rows / kQuantBlockSize,
                 data.cols / kQuantBlockSize,
                 ScaleStride(data.cols),
                 ElementType::kF32}};
  }

  // By way of the whole tensor in the kernels' type.
  void FillQuantised(const TensorShape& tensor,
                     const QuantisedMat& q,
                     const KernelTable& kernels,
                     const Fill& fill) {
    const int64_t bytes = ElementsOf(tensor) * ElementBytes(kernels.type);
    if (bytes > wide_bytes_) {
      wide_ = nullptr;
      wide_ = AllocateOnDevice(
          *kernels.memory, static_cast<size_t>(bytes), "a weight that is to be quantised");
      wide_bytes_ = bytes;
    }
    const View wide = TypedView(wide_.get(), q.data.rows, q.data.cols, kernels.type);
    fill(tensor.name, wide);
    kernels.quantise(q, wide);
  }

  FrozenMat Matrix(const std::string& name) const {
    const View view = views_.at(name);
    const auto scales = scales_.find(name);
    if (scales != scales_.end()) {
      return {view, WeightFormat::kF8, view.rows, view.cols, scales->second};
    }
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
  const bool is_quantised_;
  const int64_t bytes_;
  DeviceBuffer memory_;
  std::map<std::string, View> views_;
  std::map<std::string, View> scales_;  // of what is quantised
  DeviceBuffer wide_;                   // while weights are being loaded
  int64_t wide_bytes_ = 0;
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

int64_t DeviceWeightBytes(const ModelParams& params, ElementType matrices, bool quantise) {
  int64_t bytes = 0;
  for (const TensorShape& tensor : ModelTensors(params)) {
    bytes += BytesOf(tensor, {matrices, quantise});
  }
  return bytes;
}

Status CanQuantise(const ModelParams& params, const KernelTable& kernels) {
  if (kernels.gemm_quantised == nullptr) {
    return Unimplemented(StrCat("precision fp8: kernels ", kernels.name, " have no fp8 products"));
  }
  if (params.moe) {
    return Unimplemented("precision fp8: not for mixtures of experts; use bf16");
  }
  for (const TensorShape& tensor : ModelTensors(params)) {
    for (const int64_t size : tensor.shape) {
      if (IsQuantised(tensor, {kernels.type, true}) && size % kQuantBlockSize != 0) {
        return Unimplemented(StrCat("precision fp8: ",
                                    tensor.name,
                                    " has a side of ",
                                    size,
                                    ", which is no multiple of ",
                                    kQuantBlockSize,
                                    "; use bf16"));
      }
    }
  }
  return Status::Ok();
}

std::unique_ptr<WeightSource> MakeDeviceWeights(const ModelWeights& files,
                                                const KernelTable& kernels,
                                                bool quantise) {
  FileReader reader(files, *kernels.memory);
  return std::make_unique<DeviceWeights>(
      files.params(), kernels, quantise, [&](const std::string& name, View to) {
        reader.Read(name, to);
      });
}

std::unique_ptr<WeightSource> MakeRandomDeviceWeights(const ModelParams& params,
                                                      const KernelTable& kernels,
                                                      bool quantise) {
  constexpr float kScale = 0.035F;  // a standard deviation of 0.02
  uint64_t tensor = 0;
  return std::make_unique<DeviceWeights>(
      params, kernels, quantise, [&](const std::string& /*name*/, View to) {
        if (to.type == ElementType::kF32 && to.rows == 1) {
          const std::vector<float> ones(static_cast<size_t>(to.cols), 1.0F);
          kernels.memory->upload(to.data, ones.data(), ones.size() * sizeof(float));
        } else {
          kernels.fill_random(to, ++tensor, kScale);
        }
      });
}

}  // namespace mft
