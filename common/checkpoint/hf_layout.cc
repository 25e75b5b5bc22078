// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/hf_layout.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <span>
#include <utility>

#include "common/base/json.h"
#include "common/base/strings.h"

namespace mft {

namespace {
using Names = std::pair<std::string_view, std::string_view>;
constexpr std::array kOutside = {Names{"tok_embeddings", "model.embed_tokens"},
                                 Names{"norm", "model.norm"},
                                 Names{"output", "lm_head"}};
constexpr std::array kInside = {Names{"attention_norm", "input_layernorm"},
                                Names{"ffn_norm", "post_attention_layernorm"},
                                Names{"attention.wq", "self_attn.q_proj"},
                                Names{"attention.wk", "self_attn.k_proj"},
                                Names{"attention.wv", "self_attn.v_proj"},
                                Names{"attention.wo", "self_attn.o_proj"},
                                Names{"feed_forward.w1", "mlp.gate_proj"},
                                Names{"feed_forward.w2", "mlp.down_proj"},
                                Names{"feed_forward.w3", "mlp.up_proj"},
                                Names{"feed_forward.gate", "block_sparse_moe.gate"}};
constexpr int64_t kDefaultContext = 32'768;

std::optional<std::string_view> Lookup(std::span<const Names> names, std::string_view mistral) {
  const auto found = std::ranges::find(names, mistral, &Names::first);
  return found == names.end() ? std::nullopt : std::optional(found->second);
}

// A window, or null: attention over everything. Some files have it as text.
Result<Json> Window(const Json& value) {
  if (value.is_null()) {
    return Json();
  }
  int64_t window = 0;
  if (value.is_number_integer()) {
    window = value.get<int64_t>();
  } else if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    std::from_chars(text.data(), text.data() + text.size(), window);
  }
  if (window < 1) {
    return InvalidArgument(StrCat("\"sliding_window\" must be a number of tokens, not ",
                                  Printable(DumpJson(value), 80)));
  }
  return Json(window);
}

Result<Json> SlidingWindow(const Json& params_json) {
  for (const char* key : {"sliding_window", "_sliding_window"}) {
    const auto found = params_json.find(key);
    if (found == params_json.end() || found->is_null()) {
      continue;
    }
    if (!found->is_array()) {
      return Window(*found);
    }
    if (!std::ranges::all_of(*found, [&](const Json& each) { return each == found->front(); })) {
      return Unimplemented(StrCat("\"",
                                  key,
                                  "\": windows that differ between layers cannot be written into "
                                  "Hugging Face's config.json"));
    }
    return found->empty() ? Result<Json>(Json()) : Window(found->front());
  }
  return Json();
}

int64_t LongestContext(const Json& params_json) {
  for (const char* key : {"max_seq_len", "max_position_embeddings"}) {
    const auto found = params_json.find(key);
    if (found != params_json.end() && found->is_number_integer() && found->get<int64_t>() > 0) {
      return found->get<int64_t>();
    }
  }
  return kDefaultContext;
}

std::string_view TorchName(DType dtype) {
  return dtype == DType::kF32 ? "float32" : dtype == DType::kF16 ? "float16" : "bfloat16";
}
}  // namespace

std::string HfModule(std::string_view mistral) {
  if (const auto name = Lookup(kOutside, mistral)) {
    return std::string(*name);
  }
  constexpr std::string_view kLayers = "layers.";
  constexpr std::string_view kExperts = "feed_forward.experts.";
  MFT_CHECK(mistral.starts_with(kLayers), std::string(mistral));
  const size_t dot = mistral.find('.', kLayers.size());
  MFT_CHECK(dot != std::string_view::npos, std::string(mistral));
  const std::string_view layer = mistral.substr(0, dot);
  const std::string_view inside = mistral.substr(dot + 1);
  if (inside.starts_with(kExperts)) {
    return StrCat("model.", layer, ".block_sparse_moe.experts.", inside.substr(kExperts.size()));
  }
  const auto name = Lookup(kInside, inside);
  MFT_CHECK(name.has_value(), std::string(mistral));
  return StrCat("model.", layer, ".", *name);
}

std::string HfTargetModule(const ModelParams& params, const std::string& module) {
  const std::string name = HfModule(ProjectionNames(params, 0, module).front());
  return name.substr(name.rfind('.') + 1);
}

int64_t RotaryHeads(const ModelParams& params, std::string_view mistral) {
  return mistral.ends_with(".attention.wq")   ? params.n_heads
         : mistral.ends_with(".attention.wk") ? params.n_kv_heads
                                              : 0;
}

int64_t MistralRow(int64_t head_dim, int64_t row) {
  const int64_t half = head_dim / 2;
  const int64_t inside = row % head_dim;
  return row - inside + 2 * (inside % half) + inside / half;
}

Result<std::string> HfConfigJson(const std::string& model_dir,
                                 const ModelParams& params,
                                 DType dtype) {
  MFT_ASSIGN_OR_RETURN(const Json own, ReadParamsJson(model_dir));
  MFT_ASSIGN_OR_RETURN(const Json window, SlidingWindow(own));
  Json config = {
      {"architectures", {params.moe ? "MixtralForCausalLM" : "MistralForCausalLM"}},
      {"model_type", params.moe ? "mixtral" : "mistral"},
      {"attention_dropout", 0.0},
      {"bos_token_id", 1},
      {"eos_token_id", 2},
      {"head_dim", params.head_dim},
      {"hidden_act", "silu"},
      {"hidden_size", params.dim},
      {"initializer_range", 0.02},
      {"intermediate_size", params.hidden_dim},
      {"max_position_embeddings", LongestContext(own)},
      {"num_attention_heads", params.n_heads},
      {"num_hidden_layers", params.n_layers},
      {"num_key_value_heads", params.n_kv_heads},
      {"rms_norm_eps", params.norm_eps},
      {"rope_theta", params.rope_theta},
      {"sliding_window", window},
      {"tie_word_embeddings", params.tied_embeddings},
      {"torch_dtype", TorchName(dtype)},
      {"use_cache", true},
      {"vocab_size", params.vocab_size},
  };
  if (params.moe) {
    config["num_local_experts"] = params.moe->num_experts;
    config["num_experts_per_tok"] = params.moe->num_experts_per_tok;
    config["output_router_logits"] = false;
    config["router_aux_loss_coef"] = 0.02;
  }
  return config.dump(2) + "\n";
}

}  // namespace mft
