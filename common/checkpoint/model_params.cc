// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/model_params.h"

#include <array>
#include <cmath>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/hf_config.h"

namespace mft {

namespace {
constexpr size_t kMaxParamsBytes = size_t{1} << 20;

struct SizeKey {
  const char* name;
  int64_t ModelParams::*member;
  int64_t max;
};
// Far above every real model, and so that no count of parameters overflows.
constexpr std::array kSizes = {
    SizeKey{"dim", &ModelParams::dim, 1 << 17},
    SizeKey{"n_layers", &ModelParams::n_layers, 1 << 10},
    SizeKey{"head_dim", &ModelParams::head_dim, 1 << 12},
    SizeKey{"hidden_dim", &ModelParams::hidden_dim, 1 << 20},
    SizeKey{"n_heads", &ModelParams::n_heads, 1 << 12},
    SizeKey{"n_kv_heads", &ModelParams::n_kv_heads, 1 << 12},
    SizeKey{"vocab_size", &ModelParams::vocab_size, 1 << 24},
};
constexpr int64_t kMaxExperts = 1 << 10;
// Keys whose presence means an architecture that would silently be trained wrong.
constexpr std::array kUnsupported = {
    "yarn", "llama_4_scaling", "vision_encoder", "quantization", "q_lora_rank"};

constexpr std::string_view kHfConfig = "config.json";

// Repositories with both say the same in them.
std::string ParamsPath(const std::string& directory) {
  std::string path = JoinPath(directory, "params.json");
  const std::string config = JoinPath(directory, kHfConfig);
  return !PathExists(path) && PathExists(config) ? config : path;
}

Result<int64_t> Size(const Json& json, const char* key, int64_t max) {
  MFT_ASSIGN_OR_RETURN(const int64_t value, GetInt(json, key));
  if (value < 1 || value > max) {
    return InvalidArgument(StrCat("\"", key, "\" must be between 1 and ", max, ", not ", value));
  }
  return value;
}

Status CheckSupported(const Json& json) {
  for (const char* key : kUnsupported) {
    if (json.contains(key) && !json[key].is_null()) {
      return Unimplemented(
          StrCat("\"", key, "\": models with it cannot be trained by this version"));
    }
  }
  if (StringOr(json, "model_type", "transformer") != "transformer") {
    return Unimplemented(StrCat("\"model_type\" is \"",
                                StringOr(json, "model_type", ""),
                                "\"; only \"transformer\" can be trained"));
  }
  return Status::Ok();
}

Result<std::optional<MoeParams>> ReadMoe(const Json& json) {
  if (!json.contains("moe") || json["moe"].is_null()) {
    return std::optional<MoeParams>();
  }
  const Json& section = json["moe"];
  if (!section.is_object()) {
    return InvalidArgument("\"moe\" must be an object");
  }
  MoeParams moe;
  for (const auto& [key, value] : section.items()) {
    if (value.is_null()) {
      continue;
    }
    if (key == "num_experts") {
      MFT_ASSIGN_OR_RETURN(moe.num_experts, Size(section, "num_experts", kMaxExperts));
    } else if (key == "num_experts_per_tok") {
      MFT_ASSIGN_OR_RETURN(moe.num_experts_per_tok,
                           Size(section, "num_experts_per_tok", kMaxExperts));
    } else {  // shared experts, experts in some layers only: other networks
      return Unimplemented(StrCat("\"moe\": \"",
                                  Printable(key, 80),
                                  "\": models with it cannot be trained by this version"));
    }
  }
  if (moe.num_experts_per_tok > moe.num_experts) {
    return InvalidArgument(StrCat("\"moe\": \"num_experts_per_tok\" (",
                                  moe.num_experts_per_tok,
                                  ") is more than \"num_experts\" (",
                                  moe.num_experts,
                                  ")"));
  }
  return std::optional<MoeParams>(moe);
}

Result<ModelParams> ParseParams(const Json& json) {
  MFT_RETURN_IF_ERROR(CheckSupported(json));
  ModelParams params;
  for (const SizeKey& key : kSizes) {
    MFT_ASSIGN_OR_RETURN(params.*key.member, Size(json, key.name, key.max));
  }
  if (params.n_heads % params.n_kv_heads != 0) {
    return InvalidArgument(StrCat("\"n_heads\" (",
                                  params.n_heads,
                                  ") is no multiple of \"n_kv_heads\" (",
                                  params.n_kv_heads,
                                  ")"));
  }
  if (params.head_dim % 2 != 0) {
    return InvalidArgument(
        StrCat("\"head_dim\" must be even for rotary embeddings, not ", params.head_dim));
  }
  MFT_ASSIGN_OR_RETURN(params.norm_eps, GetDouble(json, "norm_eps"));
  if (!(params.norm_eps >= 0 && params.norm_eps < 1)) {
    return InvalidArgument(StrCat("\"norm_eps\" must be between 0 and 1, not ", params.norm_eps));
  }
  params.rope_theta_given = json.contains("rope_theta") && !json["rope_theta"].is_null();
  if (params.rope_theta_given) {
    MFT_ASSIGN_OR_RETURN(params.rope_theta, GetDouble(json, "rope_theta"));
  } else {
    const auto is_set = [&](const char* key) { return json.contains(key) && !json[key].is_null(); };
    params.rope_theta = is_set("sliding_window") || is_set("_sliding_window") ? 1e4 : 1e6;
  }
  if (!(params.rope_theta > 0) || !std::isfinite(params.rope_theta)) {
    return InvalidArgument(StrCat("\"rope_theta\" must be positive, not ", params.rope_theta));
  }
  MFT_ASSIGN_OR_RETURN(params.moe, ReadMoe(json));
  params.tied_embeddings = BoolOr(json, "tied_embeddings", false);
  return params;
}

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (const int64_t size : shape) {
    product *= size;
  }
  return product;
}

const std::array<std::string, 7> kModules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};

// Weights of all projections of one layer; MoE counts `experts` of the feed-forward ones.
int64_t ProjectionParameters(const ModelParams& params, int64_t experts) {
  int64_t total = 0;
  for (const std::string& module : kModules) {
    total += Elements(ProjectionShape(params, module)) * (IsFeedForward(module) ? experts : 1);
  }
  return total;
}

// Of one layer, with `experts` of the feed-forward modules.
int64_t LoraParametersOfLayer(const ModelParams& params,
                              int64_t rank,
                              const std::vector<std::string>& target_modules,
                              int64_t experts) {
  int64_t total = 0;
  for (const std::string& module : target_modules) {
    const auto shape = ProjectionShape(params, module);
    total += rank * (shape[0] + shape[1]) * (IsFeedForward(module) ? experts : 1);
  }
  return total;
}
}  // namespace

Result<Json> ReadParamsJson(const std::string& directory) {
  const std::string path = ParamsPath(directory);
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxParamsBytes));
  auto json = ParseJson(text, 16);
  if (!json.ok()) {
    return json.status().WithContext(path);
  }
  if (!json->is_object()) {
    return InvalidArgument(StrCat(path, ": must be a JSON object"));
  }
  if (!path.ends_with(kHfConfig)) {
    return json;
  }
  auto params = ParamsOfHfConfig(*json);
  return params.ok() ? std::move(params) : Result<Json>(params.status().WithContext(path));
}

Result<std::string> DerivedParamsJson(const std::string& model_dir, const ModelParams& params) {
  MFT_ASSIGN_OR_RETURN(Json json, ReadParamsJson(model_dir));
  json.erase("lora");
  for (const SizeKey& key : kSizes) {
    json[key.name] = params.*key.member;
  }
  json["rope_theta"] = params.rope_theta;
  return json.dump(4) + "\n";
}

Result<ModelParams> ReadModelParams(const std::string& model_dir) {
  MFT_ASSIGN_OR_RETURN(const Json json, ReadParamsJson(model_dir));
  auto params = ParseParams(json);
  return params.ok() ? std::move(params)
                     : Result<ModelParams>(params.status().WithContext(ParamsPath(model_dir)));
}

Result<std::optional<LoraParams>> ReadLoraParams(const std::string& directory) {
  MFT_ASSIGN_OR_RETURN(const Json json, ReadParamsJson(directory));
  if (!json.contains("lora") || json["lora"].is_null()) {
    return std::optional<LoraParams>();
  }
  LoraParams lora;
  const Json& section = json["lora"];
  lora.enable = BoolOr(section, "enable", true);
  MFT_ASSIGN_OR_RETURN(lora.rank, Size(section, "rank", 1 << 16));
  lora.dropout = DoubleOr(section, "dropout", 0);
  MFT_ASSIGN_OR_RETURN(lora.scaling, GetDouble(section, "scaling"));
  return std::optional<LoraParams>(lora);
}

std::string ModelParamsToJson(const ModelParams& params, const LoraParams* lora) {
  Json json = Json::object();
  for (const char* key : {"dim", "n_layers", "head_dim", "hidden_dim", "n_heads", "n_kv_heads"}) {
    for (const SizeKey& size : kSizes) {
      if (std::string_view(size.name) == key) {
        json[key] = params.*size.member;
      }
    }
  }
  json["norm_eps"] = params.norm_eps;
  json["vocab_size"] = params.vocab_size;
  json["rope_theta"] = params.rope_theta;
  if (lora != nullptr) {
    json["lora"] = {{"enable", lora->enable},
                    {"rank", lora->rank},
                    {"dropout", lora->dropout},
                    {"scaling", lora->scaling}};
  }
  if (params.tied_embeddings) {
    json["tied_embeddings"] = true;
  }
  json["moe"] = nullptr;
  if (params.moe) {
    json["moe"] = {{"num_experts", params.moe->num_experts},
                   {"num_experts_per_tok", params.moe->num_experts_per_tok}};
  }
  return json.dump(4) + "\n";
}

int64_t TotalParameters(const ModelParams& params) {
  const int64_t experts = params.moe ? params.moe->num_experts : 1;
  const int64_t gate = params.moe ? params.moe->num_experts * params.dim : 0;
  const int64_t layer = ProjectionParameters(params, experts) + gate + 2 * params.dim;
  const int64_t outside = (params.tied_embeddings ? 1 : 2) * params.vocab_size * params.dim;
  return outside + params.n_layers * layer + params.dim;
}

int64_t ActiveMatmulParameters(const ModelParams& params) {
  const int64_t experts = params.moe ? params.moe->num_experts_per_tok : 1;
  const int64_t gate = params.moe ? params.moe->num_experts * params.dim : 0;
  return params.n_layers * (ProjectionParameters(params, experts) + gate) +
         params.vocab_size * params.dim;
}

int64_t LoraParameters(const ModelParams& params,
                       int64_t rank,
                       const std::vector<std::string>& target_modules) {
  const int64_t experts = params.moe ? params.moe->num_experts : 1;
  return params.n_layers * LoraParametersOfLayer(params, rank, target_modules, experts);
}

int64_t ActiveLoraParameters(const ModelParams& params,
                             int64_t rank,
                             const std::vector<std::string>& target_modules) {
  const int64_t experts = params.moe ? params.moe->num_experts_per_tok : 1;
  return params.n_layers * LoraParametersOfLayer(params, rank, target_modules, experts);
}

std::vector<int64_t> ProjectionShape(const ModelParams& params, const std::string& module) {
  if (module == "wq") {
    return {params.n_heads * params.head_dim, params.dim};
  }
  if (module == "wk" || module == "wv") {
    return {params.n_kv_heads * params.head_dim, params.dim};
  }
  if (module == "wo") {
    return {params.dim, params.n_heads * params.head_dim};
  }
  if (module == "w1" || module == "w3") {
    return {params.hidden_dim, params.dim};
  }
  MFT_CHECK(module == "w2", module);
  return {params.dim, params.hidden_dim};
}

bool IsFeedForward(const std::string& module) {
  return module.size() == 2 && module[0] == 'w' && module[1] >= '1' && module[1] <= '3';
}

std::string ProjectionName(int64_t layer, const std::string& module) {
  return StrCat("layers.", layer, IsFeedForward(module) ? ".feed_forward." : ".attention.", module);
}

std::string ExpertProjectionName(int64_t layer, int64_t expert, const std::string& module) {
  return StrCat("layers.", layer, ".feed_forward.experts.", expert, ".", module);
}

std::vector<std::string> ProjectionNames(const ModelParams& params,
                                         int64_t layer,
                                         const std::string& module) {
  if (!params.moe || !IsFeedForward(module)) {
    return {ProjectionName(layer, module)};
  }
  std::vector<std::string> names;
  for (int64_t expert = 0; expert < params.moe->num_experts; ++expert) {
    names.push_back(ExpertProjectionName(layer, expert, module));
  }
  return names;
}

std::string RouterName(int64_t layer) {
  return StrCat("layers.", layer, ".feed_forward.gate.weight");
}

std::vector<TensorShape> ModelTensors(const ModelParams& params) {
  std::vector<TensorShape> tensors = {{"tok_embeddings.weight", {params.vocab_size, params.dim}},
                                      {"norm.weight", {params.dim}}};
  if (!params.tied_embeddings) {
    tensors.push_back({"output.weight", {params.vocab_size, params.dim}});
  }
  for (int64_t layer = 0; layer < params.n_layers; ++layer) {
    for (const std::string& module : kModules) {
      for (const std::string& name : ProjectionNames(params, layer, module)) {
        tensors.push_back({name + ".weight", ProjectionShape(params, module)});
      }
    }
    if (params.moe) {
      tensors.push_back({RouterName(layer), {params.moe->num_experts, params.dim}});
    }
    tensors.push_back({StrCat("layers.", layer, ".attention_norm.weight"), {params.dim}});
    tensors.push_back({StrCat("layers.", layer, ".ffn_norm.weight"), {params.dim}});
  }
  return tensors;
}

std::vector<TensorShape> LoraTensors(const ModelParams& params,
                                     int64_t rank,
                                     const std::vector<std::string>& target_modules) {
  std::vector<TensorShape> tensors;
  for (int64_t layer = 0; layer < params.n_layers; ++layer) {
    for (const std::string& module : target_modules) {
      const auto shape = ProjectionShape(params, module);
      for (const std::string& name : ProjectionNames(params, layer, module)) {
        tensors.push_back({name + ".lora_A.weight", {rank, shape[1]}});
        tensors.push_back({name + ".lora_B.weight", {shape[0], rank}});
      }
    }
  }
  return tensors;
}

}  // namespace mft
