// SPDX-License-Identifier: Apache-2.0
// The same model in Hugging Face's layout (formats.md 6): names of modules, order of rows, and
// config.json.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/safetensors.h"

namespace mft {

// "layers.0.attention.wq" -> "model.layers.0.self_attn.q_proj"; a name without ".weight". Of a
// mixture of experts "layers.0.feed_forward.experts.1.w2" ->
// "model.layers.0.block_sparse_moe.experts.1.w2". A name that is none of Mistral's is a bug.
std::string HfModule(std::string_view mistral);
// The last component: what PEFT's target_modules lists. "wq" -> "q_proj"; the experts' keep theirs.
std::string HfTargetModule(const ModelParams& params, const std::string& module);

// Mistral rotates neighbouring pairs of a head, Hugging Face its halves: the rows of wq and wk
// (and of their lora_B) are in another order. Heads of the module; 0 where rows stay as they are.
int64_t RotaryHeads(const ModelParams& params, std::string_view mistral);
// The row of Mistral's matrix that is row `row` of Hugging Face's.
int64_t MistralRow(int64_t head_dim, int64_t row);

// config.json, with sliding_window and the longest context of the model's own params.json.
// UNIMPLEMENTED: windows that differ between layers, which this config cannot say.
Result<std::string> HfConfigJson(const std::string& model_dir,
                                 const ModelParams& params,
                                 DType dtype);

}  // namespace mft
