// SPDX-License-Identifier: Apache-2.0
// params.json of a Mistral model directory (formats.md 5, finetune-spec 3.1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"

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
  bool tied_embeddings = false;  // the output matrix is the embeddings'
};

// The lora section of a checkpoint's params.json.
struct LoraParams {
  bool enable = true;
  int64_t rank = 16;
  double dropout = 0.0;
  double scaling = 2.0;
};

// Reads and checks <model_dir>/params.json, or where there is none Hugging Face's config.json:
// every size positive and bounded, heads divisible, required keys there. A missing rope_theta is
// 1e4 with a sliding window and 1e6 without (formats.md 5.1); rope_theta_given says so.
// Architectures that this build cannot train (YaRN, vision) are UNIMPLEMENTED.
Result<ModelParams> ReadModelParams(const std::string& model_dir);

// The lora section of <directory>/params.json; nothing where there is none.
Result<std::optional<LoraParams>> ReadLoraParams(const std::string& directory);

// <directory>/params.json as it is: a JSON object; where there is none, what config.json says in
// its words (hf_config.h).
Result<Json> ReadParamsJson(const std::string& directory);

// params.json for weights made from those of <model_dir>: every key of its own, the sizes and the
// rope_theta of `params`, and no lora section.
Result<std::string> DerivedParamsJson(const std::string& model_dir, const ModelParams& params);

// As mistral-finetune writes it into checkpoints (indent 4); the lora section only with adapters.
std::string ModelParamsToJson(const ModelParams& params, const LoraParams* lora);

int64_t TotalParameters(const ModelParams& params);
// Parameters of the base that are multiplied for one token (no embedding; MoE: the chosen experts):
// N of numerics.md.
int64_t ActiveMatmulParameters(const ModelParams& params);
// LoRA parameters of the given modules at `rank`.
int64_t LoraParameters(const ModelParams& params,
                       int64_t rank,
                       const std::vector<std::string>& target_modules);
// Of them, those that are multiplied for one token (MoE: of the chosen experts): P of numerics.md.
int64_t ActiveLoraParameters(const ModelParams& params,
                             int64_t rank,
                             const std::vector<std::string>& target_modules);

struct TensorShape {
  std::string name;  // "layers.0.attention.wq.weight"
  std::vector<int64_t> shape;
};

// [out, in] of a projection ("wq" ... "w3") of any layer.
std::vector<int64_t> ProjectionShape(const ModelParams& params, const std::string& module);
// w1, w2 and w3: of the feed-forward network, which mixture-of-experts models have once an expert.
bool IsFeedForward(const std::string& module);
// "layers.3.attention.wq", "layers.3.feed_forward.w1": without ".weight" or ".lora_A.weight".
std::string ProjectionName(int64_t layer, const std::string& module);
// "layers.3.feed_forward.experts.0.w1"
std::string ExpertProjectionName(int64_t layer, int64_t expert, const std::string& module);
// One name; of a mixture-of-experts model's feed-forward modules one an expert.
std::vector<std::string> ProjectionNames(const ModelParams& params,
                                         int64_t layer,
                                         const std::string& module);
// "layers.3.feed_forward.gate.weight" [num_experts, dim] of a mixture-of-experts model.
std::string RouterName(int64_t layer);
// Every tensor of consolidated.safetensors (formats.md 5.3).
std::vector<TensorShape> ModelTensors(const ModelParams& params);
// lora_A [rank, in] and lora_B [out, rank] of every layer, given module and expert (formats.md
// 5.4); the router has none.
std::vector<TensorShape> LoraTensors(const ModelParams& params,
                                     int64_t rank,
                                     const std::vector<std::string>& target_modules);

}  // namespace mft
