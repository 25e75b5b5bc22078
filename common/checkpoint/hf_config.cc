// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/hf_config.h"

#include <array>
#include <string_view>
#include <utility>

#include "common/base/strings.h"

namespace mft {

namespace {
constexpr std::array<std::pair<const char*, const char*>, 6> kKeys = {{
    {"hidden_size", "dim"},
    {"num_hidden_layers", "n_layers"},
    {"intermediate_size", "hidden_dim"},
    {"num_attention_heads", "n_heads"},
    {"rms_norm_eps", "norm_eps"},
    {"vocab_size", "vocab_size"},
}};

bool IsSet(const Json& json, const char* key) {
  return json.contains(key) && !json[key].is_null();
}

bool IsMixtral(const Json& config) {
  return StringOr(config, "model_type", "") == "mixtral";
}

// Newer files have it in a section. What a file does not say is the default of transformers.
Result<Json> RopeTheta(const Json& config) {
  const Json section =
      IsSet(config, "rope_parameters") ? config["rope_parameters"] : Json::object();
  const std::string type = section.is_object() ? StringOr(section, "rope_type", "default") : "";
  if (type != "default") {
    return Unimplemented(
        "\"rope_parameters\": only models with \"rope_type\" \"default\" can be trained");
  }
  if (IsSet(section, "rope_theta")) {
    return section["rope_theta"];
  }
  return IsSet(config, "rope_theta") ? config["rope_theta"] : Json(IsMixtral(config) ? 1e6 : 1e4);
}

Json KeyValueHeads(const Json& config) {
  constexpr int64_t kDefault = 8;
  if (!config.contains("num_key_value_heads")) {
    return kDefault;
  }
  const char* key =
      IsSet(config, "num_key_value_heads") ? "num_key_value_heads" : "num_attention_heads";
  return config.value(key, Json());
}

Status CheckSupported(const Json& config) {
  const std::string type = StringOr(config, "model_type", "");
  if (type != "mistral" && type != "mixtral") {
    return Unimplemented(StrCat("\"model_type\" is \"",
                                Printable(type, 80),
                                "\"; only \"mistral\" and \"mixtral\" can be trained"));
  }
  for (const char* key : {"quantization_config", "rope_scaling"}) {
    if (IsSet(config, key)) {
      return Unimplemented(
          StrCat("\"", key, "\": models with it cannot be trained by this version"));
    }
  }
  if (BoolOr(config, "attention_bias", false) || BoolOr(config, "mlp_bias", false)) {
    return Unimplemented("biases: models with them cannot be trained by this version");
  }
  const std::string activation = StringOr(config, "hidden_act", "silu");
  if (activation != "silu") {
    return Unimplemented(StrCat(
        "\"hidden_act\" is \"", Printable(activation, 80), "\"; only \"silu\" can be trained"));
  }
  return Status::Ok();
}
}  // namespace

Result<Json> ParamsOfHfConfig(const Json& config) {
  MFT_RETURN_IF_ERROR(CheckSupported(config));
  Json params = Json::object();
  for (const auto& [theirs, ours] : kKeys) {
    if (IsSet(config, theirs)) {
      params[ours] = config[theirs];
    }
  }
  params["n_kv_heads"] = KeyValueHeads(config);
  MFT_ASSIGN_OR_RETURN(params["rope_theta"], RopeTheta(config));
  if (IsSet(config, "head_dim")) {
    params["head_dim"] = config["head_dim"];
  } else {
    MFT_ASSIGN_OR_RETURN(const int64_t dim, GetInt(config, "hidden_size"));
    MFT_ASSIGN_OR_RETURN(const int64_t heads, GetInt(config, "num_attention_heads"));
    if (heads < 1 || dim % heads != 0) {
      return InvalidArgument(StrCat("\"hidden_size\" (",
                                    dim,
                                    ") is no multiple of \"num_attention_heads\" (",
                                    heads,
                                    "), and there is no \"head_dim\""));
    }
    params["head_dim"] = dim / heads;
  }
  for (const char* key : {"sliding_window", "max_position_embeddings"}) {
    if (IsSet(config, key)) {
      params[key] = config[key];
    }
  }
  params["tied_embeddings"] = BoolOr(config, "tie_word_embeddings", false);
  if (IsMixtral(config)) {
    params["moe"] = {{"num_experts", config.value("num_local_experts", Json(8))},
                     {"num_experts_per_tok", config.value("num_experts_per_tok", Json(2))}};
  }
  return params;
}

}  // namespace mft
