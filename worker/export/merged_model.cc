// SPDX-License-Identifier: Apache-2.0
#include "worker/export/merged_model.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "common/checkpoint/hf_layout.h"
#include "common/checkpoint/model_files.h"
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
  TensorEntry entry;
  View a, b;  // data null: not adapted
  float scaling = 1;
  DType dtype = DType::kF32;
  bool permuted = false;
  int64_t head_dim = 0;

  bool adapted() const { return a.data != nullptr && b.data != nullptr; }
  bool is_copy() const { return !adapted() && !permuted && dtype == entry.dtype; }
};

Bytes Make(const Recipe& recipe) {
  std::vector<float> weight = Widen(recipe.entry);
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

Result<std::vector<TensorToWrite>> MergedTensors(const SafetensorsFile& base,
                                                 const ModelParams& params,
                                                 LoraStore& adapters,
                                                 const MergeOptions& options) {
  const std::vector<TensorShape> expected = ModelTensors(params);
  MFT_RETURN_IF_ERROR(CheckTensors(base, expected));
  const bool hf = options.style == NameStyle::kHuggingFace;
  std::vector<TensorToWrite> tensors;
  for (const TensorShape& each : expected) {
    const TensorEntry& entry = *base.Find(each.name);
    const std::string module = each.name.substr(0, each.name.size() - kWeight.size());
    Recipe recipe{.entry = entry,
                  .a = MatrixOf(adapters, module + ".lora_A.weight"),
                  .b = MatrixOf(adapters, module + ".lora_B.weight"),
                  .scaling = static_cast<float>(adapters.options().scaling),
                  .dtype = options.dtype.value_or(entry.dtype),
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
                        const std::string& base_weights,
                        const ModelParams& params,
                        LoraStore& adapters,
                        std::optional<DType> dtype) {
  MFT_ASSIGN_OR_RETURN(const auto base, SafetensorsFile::Open(base_weights));
  MFT_ASSIGN_OR_RETURN(auto tensors, MergedTensors(*base, params, adapters, {.dtype = dtype}));
  return WriteSafetensors(path, std::move(tensors));
}

}  // namespace mft
