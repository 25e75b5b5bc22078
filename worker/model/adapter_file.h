// SPDX-License-Identifier: Apache-2.0
// Adapters on disk: lora.safetensors as mistral-finetune writes it (formats.md 5.4), fp32 or bf16.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/safetensors.h"
#include "worker/model/lora_store.h"

namespace mft {

// The file that a path means: itself, or lora.safetensors in it or in its consolidated/.
std::string AdapterFile(const std::string& path);

// mistral-inference's, for files that do not say.
inline constexpr double kDefaultScaling = 2.0;

// Rank, target modules and type of an adapter for this model, from its tensors; scaling and dropout
// from the params.json beside it.
// INVALID_ARGUMENT names the first tensor that does not fit.
struct AdapterInfo {
  int64_t rank = 0;
  std::vector<std::string> target_modules;
  DType dtype = DType::kF32;
  std::optional<double> scaling;  // nothing: the file does not say
  double dropout = 0;
};
Result<AdapterInfo> InspectAdapter(const std::string& path, const ModelParams& params);

// Reads an adapter's tensors into the master arena: names and shapes must be exactly those of
// `store`. INVALID_ARGUMENT names the first that is not.
Status ReadAdapter(const std::string& path, LoraStore& store);

// The same for one arena of a file that holds several: each name is followed by `suffix`.
// `other_tensors` of the file belong to other arenas.
Status ReadArena(const SafetensorsFile& file,
                 const ParamStore& store,
                 std::string_view suffix,
                 std::span<float> arena);

}  // namespace mft
