// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/model_weights.h"
#include "worker/model/aligned_floats.h"
#include "worker/model/block_names.h"
#include "worker/model/tensor_values.h"
#include "worker/model/weight_source.h"

namespace mft {

namespace {
class ResidentWeights final : public WeightSource {
 public:
  ResidentWeights(ModelParams params, std::unique_ptr<ModelWeights> files)
      : params_(params), files_(std::move(files)) {
    head_ = {.embeddings = Matrix("tok_embeddings.weight"),
             .output = params_.tied_embeddings ? FrozenMat{} : Matrix("output.weight"),
             .norm = Vector("norm.weight")};
    if (params_.tied_embeddings) {
      head_.output = head_.embeddings;
    }
    for (int64_t layer = 0; layer < params_.n_layers; ++layer) {
      blocks_.push_back(Block(layer));
    }
  }

  const ModelParams& params() const override { return params_; }
  BlockLease Acquire(int64_t block, Phase /*phase*/) override {
    return BlockLease(&blocks_[static_cast<size_t>(block)]);
  }
  const HeadWeights& head() const override { return head_; }
  int64_t resident_bytes() const override { return resident_bytes_; }

 private:
  BlockWeights Block(int64_t layer) {
    BlockWeights block;
    FillBlock(
        block,
        params_,
        layer,
        [this](const std::string& name) { return Matrix(name); },
        [this](const std::string& name) { return Vector(name); });
    return block;
  }

  FrozenMat Matrix(const std::string& name) {
    const TensorEntry tensor = InOrder(name);
    const int64_t out = tensor.shape[0];
    const int64_t in = tensor.shape[1];
    if (tensor.dtype == DType::kBF16 && UsedWhereMapped(tensor)) {
      return {View{Mapped(tensor), out, in, in, ElementType::kBF16}, WeightFormat::kBF16, out, in};
    }
    return {MatrixView(Floats(tensor), out, in), WeightFormat::kF32, out, in};
  }

  const float* Vector(const std::string& name) { return Floats(files_->At(name)); }

  // A tensor with its rows in Mistral's order: as the file has it, or a copy.
  TensorEntry InOrder(const std::string& name) {
    TensorEntry tensor = files_->At(name);
    if (files_->IsReordered(name)) {
      const size_t bytes = tensor.data.size();
      auto* copy = reinterpret_cast<std::byte*>(
          copies_.emplace_back(MakeAlignedFloats(static_cast<int64_t>(bytes / sizeof(float)) + 1))
              .get());
      files_->CopyRows(name, copy);
      tensor.data = {copy, bytes};
    }
    return tensor;
  }

  // Views are not const, but nothing writes through a FrozenMat: the mapping is read-only and would
  // fault.
  void* Mapped(const TensorEntry& tensor) {
    resident_bytes_ += static_cast<int64_t>(tensor.data.size());
    return const_cast<std::byte*>(tensor.data.data());
  }

  float* Floats(const TensorEntry& tensor) {
    if (UsedWhereMapped(tensor)) {
      return static_cast<float*>(Mapped(tensor));
    }
    const size_t count = tensor.data.size() / DTypeSize(tensor.dtype);
    resident_bytes_ += static_cast<int64_t>(count * sizeof(float));
    float* copy = copies_.emplace_back(MakeAlignedFloats(static_cast<int64_t>(count))).get();
    ReadValues(tensor, {copy, count});
    return copy;
  }

  ModelParams params_;
  std::unique_ptr<ModelWeights> files_;
  std::vector<AlignedFloats> copies_;
  std::vector<BlockWeights> blocks_;
  HeadWeights head_;
  int64_t resident_bytes_ = 0;
};
}  // namespace

bool UsedWhereMapped(const TensorEntry& tensor) {
  // Kernels multiply by bf16 matrices; vectors are read as fp32.
  const bool readable =
      tensor.dtype == DType::kF32 || (tensor.dtype == DType::kBF16 && tensor.shape.size() == 2);
  return readable && reinterpret_cast<uintptr_t>(tensor.data.data()) % DTypeSize(tensor.dtype) == 0;
}

void MatMul(const KernelTable& kernels, View y, View x, const FrozenMat& w, float beta) {
  kernels.gemm(y, x, w.data, {.transpose_b = true, .beta = beta});
}

void MatMulT(const KernelTable& kernels, View dx, View dy, const FrozenMat& w, float beta) {
  kernels.gemm(dx, dy, w.data, {.beta = beta});
}

Result<std::unique_ptr<WeightSource>> LoadResidentWeights(const std::string& model_dir) {
  MFT_ASSIGN_OR_RETURN(const ModelParams params, ReadModelParams(model_dir));
  MFT_ASSIGN_OR_RETURN(auto files, ModelWeights::Open(model_dir, params));
  return std::unique_ptr<WeightSource>(std::make_unique<ResidentWeights>(params, std::move(files)));
}

}  // namespace mft
