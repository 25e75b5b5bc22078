// SPDX-License-Identifier: Apache-2.0
// The small parts of a run: chunks, first adapter values, numeric plan, run state, environment.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "tests/support/cache_builder.h"
#include "tests/support/temp_dir.h"
#include "worker/kernels/philox.h"
#include "worker/train/chunks.h"
#include "worker/train/lora_init.h"
#include "worker/train/resume.h"
#include "worker/train/run_state.h"
#include "worker/train/train_context.h"

namespace mft {
namespace {

MicroBatch BatchOf(const std::vector<int32_t>& lengths) {
  MicroBatch batch;
  batch.cu_seqlens = {0};
  for (size_t i = 0; i < lengths.size(); ++i) {
    batch.cu_seqlens.push_back(batch.cu_seqlens.back() + lengths[i]);
    batch.pack.push_back(static_cast<int64_t>(i));
    batch.pack_row.push_back(0);
  }
  const auto rows = static_cast<size_t>(batch.cu_seqlens.back());
  batch.x.resize(rows);
  std::iota(batch.x.begin(), batch.x.end(), 0);
  batch.y = batch.x;
  batch.mask.assign(rows, 1);
  batch.mask[0] = 0;
  batch.row_weight.assign(rows, 0.5F);
  batch.loss_tokens = static_cast<int64_t>(rows) - 1;
  return batch;
}

TEST(Chunks, AreCutAtSegmentEndsOnlyAndKeepEveryRow) {
  const auto chunks = SplitIntoChunks(BatchOf({3, 4, 9, 2, 2}), 8);
  std::vector<std::vector<int32_t>> offsets;
  std::vector<int32_t> rows;
  int64_t loss_tokens = 0;
  for (const MicroBatch& chunk : chunks) {
    offsets.push_back(chunk.cu_seqlens);
    rows.insert(rows.end(), chunk.x.begin(), chunk.x.end());
    loss_tokens += chunk.loss_tokens;
    EXPECT_EQ(chunk.x.size(), static_cast<size_t>(chunk.cu_seqlens.back()));
    EXPECT_EQ(chunk.pack.size() + 1, chunk.cu_seqlens.size());
  }
  EXPECT_EQ(offsets, (std::vector<std::vector<int32_t>>{{0, 3, 7}, {0, 9}, {0, 2, 4}}));
  EXPECT_EQ(rows, BatchOf({20}).x);
  EXPECT_EQ(loss_tokens, 19);
}

TEST(Chunks, TheMeanSegmentIsOfTheTrainingData) {
  testing::TempDir dir;
  const auto sample = [](size_t tokens) {
    return testing::TestSample{.tokens = std::vector<int32_t>(tokens, 5)};
  };
  // A sample has one row fewer than tokens: the last is predicted alone.
  const auto cache = testing::BuildCache(dir.path() + "/cache",
                                         {{.files = {{sample(11), sample(21)}, {sample(31)}}},
                                          {.kind = SourceKind::kEval, .files = {{sample(1000)}}}});
  EXPECT_EQ(MeanSegment(*cache, 4096), 20);
  EXPECT_EQ(LongestSegment(*cache, 4096), 999);
  EXPECT_EQ(MeanSegment(*cache, 16), 16);
}

TEST(Chunks, ABatchThatFitsIsLeftAlone) {
  EXPECT_EQ(SplitIntoChunks(BatchOf({3, 4}), 7).size(), 1U);
}

TEST(Philox, HasTheKnownAnswersOfRandom123) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(LoraInit, IsUniformWithinTheKaimingBound) {
  std::vector<float> a(16 * 1024);
  InitLoraA(3, "layers.0.attention.wq.lora_A.weight", 1024, false, a);
  const float bound = 1.0F / 32;
  double sum = 0;
  double squares = 0;
  for (const float value : a) {
    ASSERT_LE(std::abs(value), bound);
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const auto n = static_cast<double>(a.size());
  EXPECT_NEAR(sum / n, 0, 3 * bound / std::sqrt(3 * n));
  EXPECT_NEAR(squares / n, bound * bound / 3, 0.03 * bound * bound / 3);
  EXPECT_GT(*std::max_element(a.begin(), a.end()), 0.99F * bound);
}

TEST(LoraInit, DependsOnSeedAndNameAndNothingElse) {
  std::vector<float> a(64);
  std::vector<float> b(64);
  InitLoraA(1, "x", 64, false, a);
  InitLoraA(1, "x", 64, false, std::span(b).first(30));
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 30, b.begin()));
  InitLoraA(2, "x", 64, false, b);
  EXPECT_NE(a, b);
  InitLoraA(1, "y", 64, false, b);
  EXPECT_NE(a, b);
  InitLoraA(1, "x", 64, true, b);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(b[i], a[i], std::abs(a[i]) / 256);
    EXPECT_EQ(std::bit_cast<uint32_t>(b[i]) & 0xffff, 0U);
  }
}

TEST(RunState, SurvivesItsJson) {
  RunState state{.step = 7, .updates = 6, .max_steps = 9, .train_loss = 0.25};
  state.metrics = {.train = 100, .eval = 3};
  state.data = {.cache = "abc",
                .seed = 1,
                .seq_len = 64,
                .packs_per_step = 2,
                .packing = "whole",
                .loss_norm = "token"};
  const RunState back = RunStateFromJson(RunStateToJson(state)).value();
  EXPECT_EQ(RunStateToJson(back), RunStateToJson(state));
  EXPECT_EQ(DescribeDifferences(state.data, back.data), "");
  EXPECT_EQ(RunStateToJson(state)["data"]["position"], 14);
  DataIdentity other = state.data;
  other.seed = 5;
  other.packing = "reference";
  EXPECT_EQ(DescribeDifferences(state.data, other),
            "seed 1 -> 5, packing \"whole\" -> \"reference\"");
}

TEST(RunState, OfOlderBuildsDoesNotKnowItsBaseWeights) {
  RunState state{.step = 7, .updates = 6};
  state.data.base_weights = "abc";
  Json json = RunStateToJson(state);
  DataIdentity other = state.data;
  other.base_weights = "abd";
  EXPECT_EQ(DescribeDifferences(state.data, other), "base_weights \"abc\" -> \"abd\"");
  json["data"].erase("base_weights");
  const auto older = RunStateFromJson(json);
  ASSERT_TRUE(older.ok()) << older.status().message();
  EXPECT_EQ(DescribeDifferences(older->data, other), "");
  json["data"].erase("seed");
  EXPECT_FALSE(RunStateFromJson(json).ok());
}

TEST(RunState, OfARunThatWasEvaluatedKeepsItsChoice) {
  RunState state{.step = 7, .updates = 6};
  EXPECT_FALSE(RunStateToJson(state).contains("choice"));
  state.choice.Observe(1, 0.1 + 0.2, 0);
  state.choice.Observe(2, 4, 0);
  state.choice.Observe(3, INFINITY, 0);
  const Json json = ParseJson(DumpJson(RunStateToJson(state))).value();
  const Choice read = RunStateFromJson(json).value().choice;
  EXPECT_EQ(read.best_step, 1);
  EXPECT_EQ(read.best_loss, 0.1 + 0.2);
  EXPECT_EQ(read.reference_loss, 0.1 + 0.2);
  EXPECT_EQ(read.waited, 2);
  EXPECT_EQ(read.last_loss, Choice::kNone);
  for (const auto& [key, value] : std::vector<std::pair<std::string, Json>>{
           {"best_step", -1}, {"best_loss", "1"}, {"waited", 1.5}, {"last_loss", Json::array()}}) {
    Json bad = json;
    bad["choice"][key] = value;
    EXPECT_FALSE(RunStateFromJson(bad).ok()) << key;
    bad["choice"].erase(key);
    EXPECT_FALSE(RunStateFromJson(bad).ok()) << key;
  }
}

TEST(RunState, RefusesWhatCannotBe) {
  const Json good = RunStateToJson({.step = 7, .updates = 6});
  for (const auto& [key, value] : std::vector<std::pair<std::string, Json>>{{"version", 2},
                                                                            {"step", -1},
                                                                            {"updates", 8},
                                                                            {"data", 3},
                                                                            {"metrics", Json()},
                                                                            {"step", "7"}}) {
    Json bad = good;
    bad[key] = value;
    EXPECT_FALSE(RunStateFromJson(bad).ok()) << key;
  }
  EXPECT_TRUE(RunStateFromJson(good).ok());
}

TEST(NumericPlan, DifferencesAreNamed) {
  const Json before = {{"threads", 2}, {"torch", "2.11.0"}};
  EXPECT_EQ(DescribePlanDifferences(before, before), "");
  EXPECT_EQ(DescribePlanDifferences(before, {{"threads", 1}, {"torch", "2.11.0"}}),
            "threads 2 -> 1");
  EXPECT_EQ(DescribePlanDifferences(Json(), {{"threads", 1}}), "threads unknown -> 1");
  // A checkpoint of a GPU whose attention this one does not have.
  EXPECT_EQ(DescribePlanDifferences({{"attention", "cudnn"}}, {{"attention", "flash"}}),
            "attention \"cudnn\" -> \"flash\"");
}

TEST(TrainContext, StandsAloneOnAYamlFile) {
  testing::TempDir dir;
  const std::string job = dir.Write("job.yaml",
                                    "data: {instruct_data: d.jsonl}\nmodel_id_or_path: "
                                    "model\nrun_dir: runs/a\nmftd: {threads: 3}\n");
  const auto nothing = [](const std::string&) { return std::optional<std::string>(); };
  const auto context = LoadTrainContext({.job = job, .data_cache = "c"}, nothing);
  ASSERT_TRUE(context.ok()) << context.status().message();
  EXPECT_EQ(context->job.spec.run_dir, AbsolutePath("runs/a"));
  EXPECT_EQ(context->threads, 3);
  EXPECT_FALSE(context->attempt_id.empty());
  EXPECT_EQ(LoadTrainContext({.job = job}, nothing).status().code(), Code::kInvalidArgument);
  const auto two_ranks = [](const std::string& name) {
    const bool number = name == "WORLD_SIZE" || name == "MASTER_PORT";
    return number || name == "MASTER_ADDR" || name == "RANK"
               ? std::optional<std::string>(number ? "2" : "1")
               : std::nullopt;
  };
  const auto second = LoadTrainContext({.job = job, .data_cache = "c"}, two_ranks);
  ASSERT_TRUE(second.ok()) << second.status().message();
  EXPECT_EQ(second->job.spec.mftd.ranks, 2);
  EXPECT_EQ(second->world.rank, 1);
  const auto not_a_number = [](const std::string& name) {
    return name == "RANK" ? std::optional<std::string>("first") : std::nullopt;
  };
  EXPECT_EQ(LoadTrainContext({.job = job, .data_cache = "c"}, not_a_number).status().code(),
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace mft
