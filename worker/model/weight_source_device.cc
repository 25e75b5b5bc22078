// SPDX-License-Identifier: Apache-2.0
// All weights in a device's memory, in one piece; and who fills such memory.
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "worker/model/bf16.h"
#include "worker/model/device_layout.h"
#include "worker/model/device_weights.h"
#include "worker/model/tensor_values.h"

namespace mft {

namespace {
constexpr size_t kPieceElements = size_t{1} << 20;  // converted at a time

class ResidentDeviceWeights final : public WeightSource {
 public:
  ResidentDeviceWeights(const DeviceModel& model, const DeviceFill& fill)
      : params_(model.params),
        is_quantised_(model.quantise),
        layout_(ModelTensors(params_), {model.kernels.type, model.quantise}),
        memory_(AllocateOnDevice(
            *model.kernels.memory, static_cast<size_t>(layout_.bytes()), "the model's weights")) {
    DeviceBuffer wide;
    layout_.Fill(memory_.get(), model.kernels, fill, wide);
    for (int64_t layer = 0; layer < params_.n_layers; ++layer) {
      blocks_.push_back(layout_.Block(memory_.get(), params_, layer));
    }
    head_ = layout_.Head(memory_.get(), params_);
  }

  const ModelParams& params() const override { return params_; }
  BlockLease Acquire(int64_t block, Phase /*phase*/) override {
    return BlockLease(&blocks_[static_cast<size_t>(block)]);
  }
  const HeadWeights& head() const override { return head_; }
  int64_t resident_bytes() const override { return layout_.bytes(); }
  bool is_quantised() const override { return is_quantised_; }

 private:
  const ModelParams params_;
  const bool is_quantised_;
  const DeviceLayout layout_;
  const DeviceBuffer memory_;
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

DeviceWeightBytes DeviceWeightBytesOf(const ModelParams& params,
                                      ElementType matrices,
                                      bool quantise) {
  const DeviceTypes types{matrices, quantise};
  ModelParams one_block = params;  // all are alike
  one_block.n_layers = 1;
  const int64_t block = DeviceLayout(TensorsOfBlock(one_block, 0), types).bytes();
  return {.head = DeviceLayout(TensorsOfHead(one_block), types).bytes(),
          .block = block,
          .blocks = params.n_layers * block};
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

DeviceFill FillFromFiles(const ModelWeights& files, const KernelTable& kernels) {
  const auto reader = std::make_shared<FileReader>(files, *kernels.memory);
  return [reader](const std::string& name, View to) { reader->Read(name, to); };
}

DeviceFill FillWithRandom(const DeviceModel& model) {
  constexpr float kScale = 0.035F;  // a standard deviation of 0.02
  std::map<std::string, uint64_t> seeds;
  for (const TensorShape& tensor : ModelTensors(model.params)) {
    seeds.emplace(tensor.name, seeds.size() + 1);
  }
  return [seeds = std::move(seeds), &kernels = model.kernels](const std::string& name, View to) {
    if (to.type == ElementType::kF32 && to.rows == 1) {
      const std::vector<float> ones(static_cast<size_t>(to.cols), 1.0F);
      kernels.memory->upload(to.data, ones.data(), ones.size() * sizeof(float));
    } else {
      kernels.fill_random(to, seeds.at(name), kScale);
    }
  };
}

std::unique_ptr<WeightSource> MakeDeviceWeights(const DeviceModel& model, const DeviceFill& fill) {
  return std::make_unique<ResidentDeviceWeights>(model, fill);
}

}  // namespace mft
