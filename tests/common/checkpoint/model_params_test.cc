// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/model_params.h"

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace mft {
namespace {

const std::vector<std::string> kAll = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};

constexpr const char* k7B =
    R"({"dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8, "norm_eps": 1e-05, "vocab_size": 32768, "rope_theta": 1000000.0})";

Result<ModelParams> Read(const std::string& json) {
  const testing::TempDir dir;
  dir.Write("params.json", json);
  return ReadModelParams(dir.path());
}

std::string Replace(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

TEST(ModelParams, CountsParametersAsPublished) {
  ModelParams params = Read(k7B).value();
  EXPECT_EQ(TotalParameters(params), 7'248'023'552);
  EXPECT_EQ(LoraParameters(params, 64, kAll), 167'772'160);
  EXPECT_EQ(ActiveMatmulParameters(params), 7'248'023'552 - 32768LL * 4096 - 65 * 4096);
  params.moe = MoeParams{.num_experts = 8, .num_experts_per_tok = 2};
  EXPECT_EQ(LoraParameters(params, 64, kAll), 960'495'616);
  params.vocab_size = 32000;
  EXPECT_EQ(TotalParameters(params), 46'702'792'704);
}

struct Published {
  const char* name;
  ModelParams params;
  int64_t total;
  int64_t lora_rank_64;
};

ModelParams Sizes(int64_t dim, int64_t layers, int64_t hidden, int64_t heads, int64_t vocab) {
  ModelParams params;
  params.dim = dim;
  params.n_layers = layers;
  params.head_dim = 128;
  params.hidden_dim = hidden;
  params.n_heads = heads;
  params.n_kv_heads = 8;
  params.vocab_size = vocab;
  return params;
}

class PublishedModel : public ::testing::TestWithParam<Published> {};

TEST_P(PublishedModel, HasThePublishedCounts) {
  EXPECT_EQ(TotalParameters(GetParam().params), GetParam().total);
  EXPECT_EQ(LoraParameters(GetParam().params, 64, kAll), GetParam().lora_rank_64);
}

ModelParams Mixture(ModelParams params) {
  params.moe = MoeParams{.num_experts = 8, .num_experts_per_tok = 2};
  return params;
}

INSTANTIATE_TEST_SUITE_P(
    ModelParams,
    PublishedModel,
    ::testing::Values(
        Published{"Nemo12B", Sizes(5120, 40, 14336, 32, 131072), 12'247'782'400, 228'065'280},
        Published{"Mixtral8x22B",
                  Mixture(Sizes(6144, 56, 16384, 48, 32768)),
                  140'630'071'296,
                  2'077'229'056},
        Published{"Large123B", Sizes(12288, 88, 28672, 96, 32768), 122'610'069'504, 1'118'830'592}),
    [](const auto& test) { return test.param.name; });

TEST(ModelParams, HostileSizesCannotOverflowACount) {
  const std::string largest =
      R"({"dim":131072,"n_layers":1024,"head_dim":4096,"hidden_dim":1048576,"n_heads":4096,)"
      R"("n_kv_heads":4096,"norm_eps":1e-5,"vocab_size":16777216,)"
      R"("moe":{"num_experts":1024,"num_experts_per_tok":1024}})";
  const ModelParams params = Read(largest).value();
  EXPECT_GT(TotalParameters(params), 0);
  EXPECT_GT(ActiveMatmulParameters(params), 0);
  EXPECT_GT(LoraParameters(params, 4096, kAll), 0);
  EXPECT_FALSE(Read(Replace(largest, "131072", "131073")).ok());
}

TEST(ModelParams, ReadsTheExpertsAndRefusesOtherKindsOfThem) {
  const auto read = [](const std::string& moe) {
    return Read(Replace(k7B, "}", ", \"moe\": " + moe + "}"));
  };
  EXPECT_EQ(read(R"({"num_experts": 4, "num_experts_per_tok": 1})")->moe->num_experts, 4);
  EXPECT_EQ(read("{}")->moe->num_experts, 8);  // mistral-finetune's defaults
  EXPECT_EQ(read("{}")->moe->num_experts_per_tok, 2);
  EXPECT_FALSE(read("null")->moe.has_value());
  for (const auto& [moe, named] : std::vector<std::pair<std::string, std::string>>{
           {R"({"num_experts": 4, "num_experts_per_tok": 5})", "\"num_experts_per_tok\" (5)"},
           {R"({"num_experts": 0})", "\"num_experts\" must be between"},
           {R"({"num_experts": "8"})", "\"num_experts\""},
           {R"({"num_shared_experts": 1})", "\"num_shared_experts\": models with it"},
           {"8", "must be an object"}}) {
    const auto params = read(moe);
    ASSERT_FALSE(params.ok()) << moe;
    EXPECT_NE(params.status().message().find(named), std::string::npos)
        << params.status().message();
  }
}

TEST(ModelParams, InfersRopeTheta) {
  const std::string without = Replace(k7B, R"(, "rope_theta": 1000000.0)", "");
  EXPECT_EQ(Read(without)->rope_theta, 1e6);
  EXPECT_FALSE(Read(without)->rope_theta_given);
  EXPECT_EQ(Read(Replace(without, "}", R"(, "sliding_window": 4096})"))->rope_theta, 1e4);
}

TEST(ModelParams, NamesTheKeyAndTheValue) {
  EXPECT_NE(Read(Replace(k7B, "\"dim\": 4096, ", "")).status().message().find("\"dim\""),
            std::string::npos);
  EXPECT_NE(Read(Replace(k7B, "32, \"n_kv", "-1, \"n_kv")).status().message().find("-1"),
            std::string::npos);
  EXPECT_NE(Read(Replace(k7B, "\"n_kv_heads\": 8", "\"n_kv_heads\": 5"))
                .status()
                .message()
                .find("multiple"),
            std::string::npos);
  EXPECT_EQ(Read(Replace(k7B, "}", R"(, "yarn": {}})")).status().code(), Code::kUnimplemented);
  EXPECT_FALSE(Read("[]").ok());
  EXPECT_FALSE(Read("{").ok());
  EXPECT_EQ(ReadModelParams("/nonexistent").status().code(), Code::kNotFound);
}

TEST(ModelParams, WritesWhatItReads) {
  const testing::TempDir dir;
  const ModelParams params = Read(k7B).value();
  const LoraParams lora{.rank = 64, .scaling = 1.5};
  dir.Write("params.json", ModelParamsToJson(params, &lora));
  EXPECT_EQ(ReadModelParams(dir.path())->rope_theta, 1e6);
  EXPECT_EQ(ReadLoraParams(dir.path()).value()->scaling, 1.5);
  dir.Write("params.json", ModelParamsToJson(params, nullptr));
  EXPECT_FALSE(ReadLoraParams(dir.path()).value().has_value());
}

TEST(ModelParams, NamesEveryTensor) {
  ModelParams params = Read(k7B).value();
  EXPECT_EQ(ModelTensors(params).size(), 3U + 32U * 9U);
  EXPECT_EQ(LoraTensors(params, 64, kAll).size(), 448U);
  EXPECT_EQ(LoraTensors(params, 64, {"w2"})[1].name, "layers.0.feed_forward.w2.lora_B.weight");
  EXPECT_EQ(LoraTensors(params, 64, {"wk"})[1].shape, (std::vector<int64_t>{1024, 64}));
}

TEST(ModelParams, NamesEveryTensorOfEveryExpert) {
  ModelParams params = Read(k7B).value();
  params.moe = MoeParams{.num_experts = 8, .num_experts_per_tok = 2};
  EXPECT_EQ(ModelTensors(params).size(), 3U + 32U * (4U + 3U * 8U + 1U + 2U));
  EXPECT_EQ(ProjectionNames(params, 3, "w2")[7], "layers.3.feed_forward.experts.7.w2");
  EXPECT_EQ(ProjectionNames(params, 3, "wo"), std::vector<std::string>{"layers.3.attention.wo"});
  EXPECT_EQ(RouterName(3), "layers.3.feed_forward.gate.weight");
  const auto adapters = LoraTensors(params, 64, {"wq", "w1"});
  EXPECT_EQ(adapters.size(), 32U * 2U * (1U + 8U));
  EXPECT_EQ(adapters[3].name, "layers.0.feed_forward.experts.0.w1.lora_B.weight");
  EXPECT_EQ(LoraParameters(params, 64, {"w1"}), 4 * ActiveLoraParameters(params, 64, {"w1"}));
  EXPECT_EQ(LoraParameters(params, 64, {"wq"}), ActiveLoraParameters(params, 64, {"wq"}));
}

constexpr const char* kHf7B =
    R"({"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "vocab_size": 32768, "rope_theta": 1000000.0, "sliding_window": null, "hidden_act": "silu", "torch_dtype": "bfloat16", "tie_word_embeddings": false})";

Result<ModelParams> ReadHf(const std::string& json) {
  const testing::TempDir dir;
  dir.Write("config.json", json);
  return ReadModelParams(dir.path());
}

TEST(HuggingFaceConfig, SaysWhatParamsJsonDoes) {
  const auto params = ReadHf(kHf7B);
  ASSERT_TRUE(params.ok()) << params.status().message();
  EXPECT_EQ(ModelParamsToJson(*params, nullptr), ModelParamsToJson(*Read(k7B), nullptr));
  const auto mixture =
      ReadHf(Replace(Replace(kHf7B, "\"mistral\"", "\"mixtral\""),
                     "\"hidden_act\"",
                     "\"num_local_experts\": 6, \"num_experts_per_tok\": 3, \"hidden_act\""));
  ASSERT_TRUE(mixture.ok()) << mixture.status().message();
  EXPECT_EQ(mixture->moe->num_experts, 6);
  EXPECT_EQ(mixture->moe->num_experts_per_tok, 3);
  EXPECT_EQ(ReadHf(Replace(kHf7B, "\"hidden_act\"", "\"head_dim\": 160, \"hidden_act\""))->head_dim,
            160);
  EXPECT_TRUE(ReadHf(Replace(kHf7B, "embeddings\": false", "embeddings\": true"))->tied_embeddings);
  // What it does not say is what transformers takes for it.
  const std::string rope = "\"rope_theta\": 1000000.0, ";
  EXPECT_EQ(ReadHf(Replace(kHf7B, rope, ""))->rope_theta, 1e4);
  EXPECT_EQ(ReadHf(Replace(Replace(kHf7B, rope, ""), "\"mistral\"", "\"mixtral\""))->rope_theta,
            1e6);
  EXPECT_EQ(
      ReadHf(Replace(kHf7B,
                     rope,
                     "\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"default\"}, "))
          ->rope_theta,
      5e5);
  EXPECT_EQ(ReadHf(Replace(kHf7B, "\"num_key_value_heads\": 8, ", ""))->n_kv_heads, 8);
  EXPECT_EQ(ReadHf(Replace(kHf7B, "\"num_key_value_heads\": 8", "\"num_key_value_heads\": null"))
                ->n_kv_heads,
            32);
  // Both: Mistral's own counts.
  const testing::TempDir dir;
  dir.Write("config.json", "{");
  dir.Write("params.json", k7B);
  EXPECT_TRUE(ReadModelParams(dir.path()).ok());
}

TEST(HuggingFaceConfig, OfWhatCannotBeTrainedIsRefusedByName) {
  const auto message = [](const std::string& json) {
    const Status status = ReadHf(json).status();
    EXPECT_FALSE(status.ok()) << json;
    EXPECT_NE(status.message().find("config.json"), std::string::npos) << status.message();
    return status.message();
  };
  const auto with = [](const std::string& member) {
    return Replace(kHf7B, "\"hidden_act\"", member + ", \"hidden_act\"");
  };
  EXPECT_NE(message(Replace(kHf7B, "\"mistral\"", "\"llama\"")).find("\"llama\""),
            std::string::npos);
  EXPECT_NE(message(with("\"rope_scaling\": {\"type\": \"yarn\"}")).find("rope_scaling"),
            std::string::npos);
  EXPECT_NE(message(with("\"rope_parameters\": {\"rope_type\": \"yarn\"}")).find("rope_parameters"),
            std::string::npos);
  EXPECT_NE(message(with("\"rope_parameters\": 3")).find("rope_parameters"), std::string::npos);
  EXPECT_NE(message(with("\"quantization_config\": {}")).find("quantization_config"),
            std::string::npos);
  EXPECT_NE(message(with("\"attention_bias\": true")).find("biases"), std::string::npos);
  EXPECT_NE(message(Replace(kHf7B, "\"silu\"", "\"gelu\"")).find("gelu"), std::string::npos);
  EXPECT_NE(
      message(Replace(kHf7B, "\"hidden_size\": 4096", "\"hidden_size\": 4095")).find("no multiple"),
      std::string::npos);
  EXPECT_NE(message(Replace(kHf7B, "\"hidden_size\": 4096, ", "")).find("hidden_size"),
            std::string::npos);
  EXPECT_NE(message(Replace(kHf7B, "\"vocab_size\": 32768", "\"vocab_size\": \"many\""))
                .find("vocab_size"),
            std::string::npos);
  message("[]");
  message("{\"model_type\": 7}");
}

}  // namespace
}  // namespace mft
