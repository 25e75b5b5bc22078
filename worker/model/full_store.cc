// SPDX-License-Identifier: Apache-2.0
#include "worker/model/full_store.h"

#include <string_view>
#include <utility>

#include "common/base/files.h"
#include "common/checkpoint/model_weights.h"
#include "worker/model/block_names.h"
#include "worker/model/tensor_values.h"

namespace mft {

class TrainedWeights final : public WeightSource {
 public:
  explicit TrainedWeights(const FullStore& store) : store_(store) {}
  const ModelParams& params() const override { return store_.params_; }
  BlockLease Acquire(int64_t block, Phase /*phase*/) override {
    return BlockLease(&store_.blocks_[static_cast<size_t>(block)]);
  }
  const HeadWeights& head() const override { return store_.head_; }
  int64_t resident_bytes() const override {
    return store_.size() * static_cast<int64_t>(sizeof(float));
  }

 private:
  const FullStore& store_;
};

namespace {
constexpr std::string_view kEmbeddings = "tok_embeddings.weight";
}  // namespace

void FullStore::AddTensors() {
  const std::vector<TensorShape> tensors = ModelTensors(params_);
  const auto add = [&](const TensorShape& tensor) {
    const bool is_vector = tensor.shape.size() == 1;
    AddTensor(tensor.name, is_vector ? 1 : tensor.shape[0], tensor.shape.back(), is_vector);
  };
  const auto is_of_layer = [](const TensorShape& tensor) {
    return tensor.name.starts_with("layers.");
  };
  for (const TensorShape& tensor : tensors) {
    if (!is_of_layer(tensor) && tensor.name != kEmbeddings) {
      add(tensor);
    }
  }
  for (auto tensor = tensors.rbegin(); tensor != tensors.rend(); ++tensor) {
    if (is_of_layer(*tensor)) {
      add(*tensor);
    }
  }
  for (const TensorShape& tensor : tensors) {
    if (tensor.name == kEmbeddings) {
      add(tensor);
    }
  }
}

FullStore::FullStore(const ModelParams& params, bool training, const KernelTable* kernels)
    : ParamStore(kernels), params_(params) {
  AddTensors();
  AllocateMaster();
  if (training) {
    AllocateTraining();
  }
  MakeViews(training);
}

FullStore::FullStore(const ModelWeights& files, const KernelTable* kernels)
    : ParamStore(kernels), params_(files.params()) {
  AddTensors();
  AllocateMaster();
  std::vector<std::byte> buffer;
  for (const Tensor& tensor : tensors()) {
    ReadValues(files.InOrder(tensor.name, buffer), Part(master(), tensor));
    DropPages(files.At(tensor.name).data);
  }
  AllocateTraining();
  MakeViews(true);
}

std::unique_ptr<WeightSource> FullStore::AsWeights() const {
  return std::make_unique<TrainedWeights>(*this);
}

void FullStore::MakeViews(bool training) {
  blocks_.resize(static_cast<size_t>(params_.n_layers));
  block_grads_.resize(blocks_.size());
  for (int64_t layer = 0; layer < params_.n_layers; ++layer) {
    BlockWeights& block = blocks_[static_cast<size_t>(layer)];
    BlockGrads& grads = block_grads_[static_cast<size_t>(layer)];
    FillBlock(
        block,
        params_,
        layer,
        [this](const std::string& name) { return Matrix(name); },
        [this](const std::string& name) { return VectorOf(name); });
    FillBlock(
        grads,
        params_,
        layer,
        [this](const std::string& name) { return GradOf(name); },
        [this](const std::string& name) { return GradOf(name).f32(); });
    block.grads = training ? &grads : nullptr;
  }
  head_ = {.embeddings = Matrix(std::string(kEmbeddings)),
           .output = Matrix(OutputName()),
           .norm = VectorOf("norm.weight"),
           .grads = training ? &head_grads_ : nullptr};
  head_grads_ = {.embeddings = GradOf(std::string(kEmbeddings)),
                 .output = GradOf(OutputName()),
                 .norm = GradOf("norm.weight").f32()};
}

std::string FullStore::OutputName() const {
  return params_.tied_embeddings ? std::string(kEmbeddings) : "output.weight";
}

FrozenMat FullStore::Matrix(const std::string& name) const {
  const View view = MasterOf(name);
  const WeightFormat format =
      view.type == ElementType::kBF16 ? WeightFormat::kBF16 : WeightFormat::kF32;
  return {view, format, view.rows, view.cols};
}

}  // namespace mft
