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

}  // namespace
}  // namespace mft
