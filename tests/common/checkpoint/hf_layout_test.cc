// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/hf_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/json.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using ::testing::HasSubstr;

TEST(HfLayout, PairsOfAHeadBecomeHalves) {
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < 16; ++row) {
    rows.push_back(MistralRow(8, row));
  }
  EXPECT_THAT(rows, ::testing::ElementsAre(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
}

TEST(HfLayout, NamesOfAMixture) {
  EXPECT_EQ(HfModule("layers.12.feed_forward.experts.3.w2"),
            "model.layers.12.block_sparse_moe.experts.3.w2");
  EXPECT_EQ(HfModule("layers.12.feed_forward.gate"), "model.layers.12.block_sparse_moe.gate");
  EXPECT_EQ(HfTargetModule({.moe = MoeParams{}}, "w1"), "w1");
  EXPECT_EQ(HfTargetModule({}, "w1"), "gate_proj");
}

// config.json of a small model whose params.json has `extra` in it.
Result<std::string> ConfigWith(const std::string& extra) {
  const testing::TempDir dir;
  const std::string sizes =
      R"("dim":8,"n_layers":2,"head_dim":4,"hidden_dim":8,"n_heads":2,"n_kv_heads":1,"norm_eps":1e-5,"vocab_size":16)";
  dir.Write("params.json", "{" + sizes + extra + "}");
  return HfConfigJson(dir.path(), ReadModelParams(dir.path()).value(), DType::kBF16);
}

Json Config(const std::string& extra) {
  return ParseJson(ConfigWith(extra).value()).value();
}

TEST(HfLayout, ConfigHasWindowAndContextOfTheModel) {
  EXPECT_TRUE(Config("")["sliding_window"].is_null());
  EXPECT_EQ(Config("")["max_position_embeddings"], 32768);
  EXPECT_EQ(Config("")["rope_theta"], 1e6);
  EXPECT_EQ(Config(R"(,"sliding_window":4096,"max_seq_len":9)")["sliding_window"], 4096);
  EXPECT_EQ(Config(R"(,"sliding_window":4096,"max_seq_len":9)")["rope_theta"], 1e4);
  EXPECT_EQ(Config(R"(,"max_seq_len":9)")["max_position_embeddings"], 9);
  EXPECT_EQ(Config(R"(,"sliding_window":"4096")")["sliding_window"], 4096);
  EXPECT_EQ(Config(R"(,"_sliding_window":[7,7])")["sliding_window"], 7);
  const Status ragged = ConfigWith(R"(,"_sliding_window":[null,7])").status();
  EXPECT_EQ(ragged.code(), Code::kUnimplemented);
  EXPECT_THAT(ragged.message(), HasSubstr("_sliding_window"));
  EXPECT_THAT(ConfigWith(R"(,"sliding_window":"wide")").status().message(), HasSubstr("wide"));
}

TEST(DerivedParams, KeepWhatTheModelSays) {
  const testing::TempDir dir;
  dir.Write(
      "params.json",
      R"({"dim":8,"n_layers":2,"head_dim":4,"hidden_dim":8,"n_heads":2,"n_kv_heads":1,)"
      R"("norm_eps":1e-5,"vocab_size":16,"sliding_window":64,"lora":{"rank":4,"scaling":2},"x":"y"})");
  const ModelParams params = ReadModelParams(dir.path()).value();
  const Json json = ParseJson(DerivedParamsJson(dir.path(), params).value()).value();
  EXPECT_FALSE(json.contains("lora"));
  EXPECT_EQ(json["sliding_window"], 64);
  EXPECT_EQ(json["x"], "y");
  EXPECT_EQ(json["rope_theta"], 1e4);
}

}  // namespace
}  // namespace mft
