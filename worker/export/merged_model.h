// SPDX-License-Identifier: Apache-2.0
// A base with its adapter added: W + scaling B A in place of every adapted W, computed in fp32 and
// rounded once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/model_weights.h"
#include "common/checkpoint/safetensors.h"
#include "worker/model/lora_store.h"

namespace mft {

enum class NameStyle { kMistral, kHuggingFace };  // and the order of rows that belongs to it

struct MergeOptions {
  NameStyle style = NameStyle::kMistral;
  std::optional<DType> dtype;  // F32 or BF16; nothing: each tensor has the base's (bf16 for fp16)
};

// The model's tensors, in the order of ModelTensors; each is made when it is written. `base` and
// `adapters` are borrowed until then.
Result<std::vector<TensorToWrite>> MergedTensors(const ModelWeights& base,
                                                 const ModelParams& params,
                                                 LoraStore& adapters,
                                                 const MergeOptions& options);

// Writes consolidated.safetensors from the weights of `model_dir`.
Status WriteMergedModel(const std::string& path,
                        const std::string& model_dir,
                        const ModelParams& params,
                        LoraStore& adapters,
                        std::optional<DType> dtype);

}  // namespace mft
