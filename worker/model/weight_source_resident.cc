// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/model_weights.h"
#include "worker/model/block_names.h"
#include "worker/model/mapped_tensors.h"
#include "worker/model/weight_source.h"

namespace mft {

namespace {
class ResidentWeights final : public WeightSource {
 public:
  explicit ResidentWeights(std::shared_ptr<const ModelWeights> files)
      : files_(std::move(files)), tensors_(*files_), head_(tensors_.Head()) {
    blocks_.resize(static_cast<size_t>(params().n_layers));
    for (size_t layer = 0; layer < blocks_.size(); ++layer) {
      FillBlock(
          blocks_[layer],
          params(),
          static_cast<int64_t>(layer),
          [this](const std::string& name) { return tensors_.Matrix(name); },
          [this](const std::string& name) { return tensors_.Vector(name); });
    }
  }

  const ModelParams& params() const override { return files_->params(); }
  BlockLease Acquire(int64_t block, Phase /*phase*/) override {
    return BlockLease(&blocks_[static_cast<size_t>(block)]);
  }
  const HeadWeights& head() const override { return head_; }
  int64_t resident_bytes() const override { return tensors_.bytes(); }

 private:
  const std::shared_ptr<const ModelWeights> files_;
  MappedTensors tensors_;
  const HeadWeights head_;
  std::vector<BlockWeights> blocks_;
};
}  // namespace

bool UsedWhereMapped(const TensorEntry& tensor) {
  // Kernels multiply by bf16 matrices; vectors are read as fp32.
  const bool readable =
      tensor.dtype == DType::kF32 || (tensor.dtype == DType::kBF16 && tensor.shape.size() == 2);
  return readable && reinterpret_cast<uintptr_t>(tensor.data.data()) % DTypeSize(tensor.dtype) == 0;
}

void MatMul(
    const KernelTable& kernels, View y, const Activation& x, const FrozenMat& w, float beta) {
  if (w.format == WeightFormat::kF8) {
    kernels.gemm_quantised(y, x.quantised, {w.data, w.scales}, true, beta);
    return;
  }
  kernels.gemm(y, x.view, w.data, {.transpose_b = true, .beta = beta});
}

void MatMulT(
    const KernelTable& kernels, View dx, const Activation& dy, const FrozenMat& w, float beta) {
  if (w.format == WeightFormat::kF8) {
    kernels.gemm_quantised(dx, dy.quantised, {w.data, w.scales}, false, beta);
    return;
  }
  kernels.gemm(dx, dy.view, w.data, {.beta = beta});
}

std::unique_ptr<WeightSource> MakeResidentWeights(std::shared_ptr<const ModelWeights> files) {
  return std::make_unique<ResidentWeights>(std::move(files));
}

Result<std::unique_ptr<WeightSource>> LoadResidentWeights(const std::string& model_dir) {
  MFT_ASSIGN_OR_RETURN(const ModelParams params, ReadModelParams(model_dir));
  MFT_ASSIGN_OR_RETURN(auto files, ModelWeights::Open(model_dir, params));
  return MakeResidentWeights(std::move(files));
}

}  // namespace mft
