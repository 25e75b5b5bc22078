// SPDX-License-Identifier: Apache-2.0
#include "worker/export/adapter_export.h"

#include <cmath>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/checkpoint/hf_layout.h"
#include "worker/export/tensor_bytes.h"

namespace mft {

namespace {
constexpr std::string_view kSuffixA = ".lora_A.weight";
constexpr std::string_view kSuffixB = ".lora_B.weight";

std::span<const float> ValuesOf(ParamStore& trained, const ParamStore::Tensor& tensor) {
  return ParamStore::Part(trained.master(), tensor);
}

TensorToWrite ToWrite(ParamStore& trained, const ParamStore::Tensor& tensor, DType dtype) {
  const std::span<const float> values = ValuesOf(trained, tensor);
  return {.name = tensor.name,
          .dtype = dtype,
          .shape = tensor.shape(),
          .data = {},
          .produce = [values, dtype]() -> Result<Bytes> { return Narrow(values, dtype); }};
}

TensorToWrite ToWriteForPeft(LoraStore& adapters,
                             const LoraStore::Tensor& tensor,
                             const ModelParams& params,
                             DType dtype) {
  const bool is_b = tensor.name.ends_with(kSuffixB);
  const std::string_view suffix = is_b ? kSuffixB : kSuffixA;
  const std::string module = tensor.name.substr(0, tensor.name.size() - suffix.size());
  TensorToWrite out = ToWrite(adapters, tensor, dtype);
  out.name = StrCat("base_model.model.", HfModule(module), suffix);
  if (is_b && RotaryHeads(params, module) > 0) {
    out.produce = [make = out.produce, rows = tensor.rows, head_dim = params.head_dim]() {
      auto bytes = make();
      return bytes.ok() ? Result<Bytes>(RowsOfHuggingFace(*bytes, rows, head_dim))
                        : std::move(bytes);
    };
  }
  return out;
}

// PEFT divides by the rank. An integer where it is one: older readers want it so.
Json LoraAlpha(const LoraStoreOptions& lora) {
  const double alpha = lora.scaling * static_cast<double>(lora.rank);
  const double nearest = std::round(alpha);
  return nearest == alpha && std::abs(alpha) < 1e15 ? Json(static_cast<int64_t>(nearest))
                                                    : Json(alpha);
}

// Keys sorted, indent 2, as PEFT writes it.
std::string PeftConfigJson(const ModelParams& params,
                           const LoraStoreOptions& lora,
                           const PeftOptions& options) {
  std::vector<std::string> targets;
  for (const std::string& module : lora.target_modules) {
    targets.push_back(HfTargetModule(params, module));
  }
  const Json config = {
      {"alpha_pattern", Json::object()},
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", options.base_model.empty() ? Json() : Json(options.base_model)},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"layers_pattern", nullptr},
      {"layers_to_transform", nullptr},
      {"lora_alpha", LoraAlpha(lora)},
      {"lora_dropout", options.dropout},
      {"modules_to_save", nullptr},
      {"peft_type", "LORA"},
      {"r", lora.rank},
      {"rank_pattern", Json::object()},
      {"revision", nullptr},
      {"target_modules", targets},
      {"task_type", "CAUSAL_LM"},
      {"use_dora", false},
      {"use_rslora", false},
  };
  return config.dump(2) + "\n";
}
}  // namespace

Status WriteParameters(const std::string& path, ParamStore& trained, DType dtype) {
  std::vector<TensorToWrite> tensors;
  for (const ParamStore::Tensor& tensor : trained.tensors()) {
    tensors.push_back(ToWrite(trained, tensor, dtype));
  }
  return WriteSafetensors(path, std::move(tensors));
}

Status WritePeftAdapter(const std::string& directory,
                        const ModelParams& params,
                        LoraStore& adapters,
                        const PeftOptions& options) {
  std::vector<TensorToWrite> tensors;
  for (const LoraStore::Tensor& tensor : adapters.tensors()) {
    tensors.push_back(ToWriteForPeft(adapters, tensor, params, options.dtype));
  }
  MFT_RETURN_IF_ERROR(WriteSafetensors(
      JoinPath(directory, "adapter_model.safetensors"), std::move(tensors), {{"format", "pt"}}));
  return WriteFileAtomic(JoinPath(directory, "adapter_config.json"),
                         PeftConfigJson(params, adapters.options(), options));
}

}  // namespace mft
