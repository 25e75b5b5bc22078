// SPDX-License-Identifier: Apache-2.0
// params.json of a Mistral model directory (formats.md 5, finetune-spec 3.1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/json.h"
#include "common/base/status.h"
#include "common/config/job_spec.h"

namespace mft {

struct MoeParams {
  int64_t num_experts = 8;
  int64_t num_experts_per_tok = 2;
};

struct ModelParams {
  int64_t dim = 0;
  int64_t n_layers = 0;
  int64_t head_dim = 0;
  int64_t hidden_dim = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  double norm_eps = 1e-5;
  int64_t vocab_size = 0;
  double rope_theta = 10000.0;
  bool rope_theta_given = false;
  std::optional<MoeParams> moe;
};

// Reads and checks <model_dir>/params.json: every size positive and bounded, heads divisible, required keys there.
Result<ModelParams> ReadModelParams(const std::string& model_dir);

// As mistral-finetune writes it into checkpoints (indent 4, lora section only with adapters).
std::string ModelParamsToJson(const ModelParams& params, const LoraSpec* lora);

int64_t TotalParameters(const ModelParams& params);
// Parameters of the base that are multiplied for one token (no embedding; MoE: the chosen experts): N of numerics.md.
int64_t ActiveMatmulParameters(const ModelParams& params);
// LoRA parameters of the given modules at `rank`.
int64_t LoraParameters(const ModelParams& params, const LoraSpec& lora, const std::vector<std::string>& target_modules);

}  // namespace mft
