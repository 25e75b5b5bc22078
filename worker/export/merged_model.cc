// SPDX-License-Identifier: Apache-2.0
#include "worker/export/merged_model.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "common/checkpoint/hf_layout.h"
#include "worker/export/tensor_bytes.h"
#include "worker/kernels/kernels.h"

namespace mft {

namespace {
constexpr std::string_view kWeight = ".weight";

// data null: that projection has no adapter.
View MatrixOf(LoraStore& adapters, const std::string& name) {
  const LoraStore::Tensor* found = adapters.Find(name);
  return found == nullptr
             ? View{}
             : MatrixView(adapters.master().data() + found->offset, found->rows, found->cols);
}

// How one tensor is made from the base's.
struct Recipe {
  const ModelWeights* base = nullptr;
  TensorEntry entry;
  View a, b;  // data null: not adapted
  float scaling = 1;
  DType dtype = DType::kF32;
  bool reordered = false;  // of the base's rows
  bool permuted = false;   // of the rows written
  int64_t head_dim = 0;

  bool adapted() const { return a.data != nullptr && b.data != nullptr; }
  bool is_copy() const { return !adapted() && reordered == permuted && dtype == entry.dtype; }
};

// Nothing is written in fp16: sums may overflow it.
DType WrittenAs(DType dtype) {
  return dtype == DType::kF16 ? DType::kBF16 : dtype;
}

Bytes Make(const Recipe& recipe) {
  Bytes buffer;
  std::vector<float> weight = Widen(recipe.base->InOrder(recipe.entry.name, buffer));
  if (recipe.adapted()) {
    CpuKernels().gemm(MatrixView(weight.data(), recipe.entry.shape[0], recipe.entry.shape[1]),
                      recipe.b,
                      recipe.a,
                      {.alpha = recipe.scaling, .beta = 1});
  }
  Bytes bytes = Narrow(weight, recipe.dtype);
  if (recipe.permuted) {
    bytes = RowsOfHuggingFace(bytes, recipe.entry.shape[0], recipe.head_dim);
  }
  return bytes;
}
}  // namespace

Result<std::vector<TensorToWrite>> MergedTensors(const ModelWeights& base,
                                                 const ModelParams& params,
                                                 LoraStore& adapters,
                                                 const MergeOptions& options) {
  const std::vector<TensorShape> expected = ModelTensors(params);
  const bool hf = options.style == NameStyle::kHuggingFace;
  std::vector<TensorToWrite> tensors;
  for (const TensorShape& each : expected) {
    const TensorEntry& entry = base.At(each.name);
    const std::string module = each.name.substr(0, each.name.size() - kWeight.size());
    Recipe recipe{.base = &base,
                  .entry = entry,
                  .a = MatrixOf(adapters, module + ".lora_A.weight"),
                  .b = MatrixOf(adapters, module + ".lora_B.weight"),
                  .scaling = static_cast<float>(adapters.options().scaling),
                  .dtype = options.dtype.value_or(WrittenAs(entry.dtype)),
                  .reordered = base.IsReordered(each.name),
                  .permuted = hf && RotaryHeads(params, module) > 0,
                  .head_dim = params.head_dim};
    TensorToWrite tensor{.name = hf ? StrCat(HfModule(module), kWeight) : each.name,
                         .dtype = recipe.dtype,
                         .shape = entry.shape,
                         .data = entry.data};
    if (!recipe.is_copy()) {
      tensor.produce = [recipe = std::move(recipe)]() -> Result<Bytes> { return Make(recipe); };
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

Status WriteMergedModel(const std::string& path,
                        const std::string& model_dir,
                        const ModelParams& params,
                        LoraStore& adapters,
                        std::optional<DType> dtype) {
  MFT_ASSIGN_OR_RETURN(const auto base, ModelWeights::Open(model_dir, params));
  MFT_ASSIGN_OR_RETURN(auto tensors, MergedTensors(*base, params, adapters, {.dtype = dtype}));
  return WriteSafetensors(path, std::move(tensors));
}

}  // namespace mft
