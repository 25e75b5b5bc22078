// SPDX-License-Identifier: Apache-2.0
#include "worker/model/routing.h"

#include <cmath>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "tests/worker/model/random_weights.h"
#include "worker/model/transformer.h"

namespace mft {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Of every instruction set that this machine has.
class Router : public ::testing::TestWithParam<const char*> {
 protected:
  // One row: what is chosen, and its weights.
  std::pair<std::vector<int32_t>, std::vector<float>> Choose(std::vector<float> logits, int64_t k) {
    std::vector<int32_t> chosen(static_cast<size_t>(k), -1);
    std::vector<float> weight(static_cast<size_t>(k));
    CpuKernelsFor(GetParam())
        ->route(MatrixView(weight.data(), 1, k),
                chosen.data(),
                MatrixView(logits.data(), 1, static_cast<int64_t>(logits.size())));
    return {chosen, weight};
  }
  void SetUp() override {
    if (CpuKernelsFor(GetParam()) == nullptr) {
      GTEST_SKIP() << "this machine lacks it";
    }
  }
};

TEST_P(Router, TakesTheLargestLogitsAndTheirSoftmaxAlone) {
  const auto [chosen, weight] = Choose({0.5F, 9, -1, 7, 8}, 2);
  EXPECT_EQ(chosen, (std::vector<int32_t>{1, 4}));
  EXPECT_NEAR(weight[0], 1 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_NEAR(weight[1], 1 / (1 + std::exp(1.0)), 1e-6);
}

TEST_P(Router, TakesTheFirstAmongEquals) {
  EXPECT_EQ(Choose({1, 2, 2, 2}, 2).first, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(Choose({3, 3, 3, 3}, 3).first, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(Choose({4, 3}, 2).first, (std::vector<int32_t>{0, 1}));
}

// A broken model must not lead outside of the experts; its loss is not finite.
TEST_P(Router, TakesDifferentExpertsWhateverTheLogits) {
  const std::vector<std::vector<float>> rows = {{kNan, kNan, kNan, kNan},
                                                {1, kNan, 3, kNan},
                                                {kNan, 2, INFINITY, INFINITY},
                                                {-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
  for (const auto& logits : rows) {
    for (const int64_t k : {1, 2, 4}) {
      const auto [chosen, weight] = Choose(logits, k);
      EXPECT_EQ(std::set<int32_t>(chosen.begin(), chosen.end()).size(), static_cast<size_t>(k));
      for (const int32_t expert : chosen) {
        EXPECT_TRUE(expert >= 0 && expert < 4) << expert;
      }
    }
  }
}

// A logit so far below that its weight is nothing: no 0 / 0.
TEST_P(Router, BackwardIsFiniteWhereAWeightIsZero) {
  std::vector<float> weight = {1, 0};
  std::vector<float> weighted = {0.25F, 0};
  const std::vector<int32_t> chosen = {2, 0};
  std::vector<float> d_logits(3, kNan);
  CpuKernelsFor(GetParam())
      ->route_backward(MatrixView(d_logits.data(), 1, 3),
                       MatrixView(weighted.data(), 1, 2),
                       MatrixView(weight.data(), 1, 2),
                       chosen.data());
  EXPECT_EQ(d_logits, (std::vector<float>{0, 0, 0}));
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, Router, ::testing::Values("avx512", "avx2", "baseline"));

TEST(Routing, GroupsVisitsByExpertInOrderOfTheRows) {
  Routing routing({.num_experts = 4, .num_experts_per_tok = 2}, 3);
  const std::vector<int32_t> chosen = {3, 0, 0, 1, 3, 1};
  std::copy(chosen.begin(), chosen.end(), routing.chosen());
  const View weights = routing.Weights(3);
  for (int i = 0; i < 6; ++i) {
    weights.f32()[i] = static_cast<float>(i);
  }
  routing.Group(3);
  const auto rows = [&](int64_t expert) {
    return std::vector<int32_t>(routing.rows_of(expert),
                                routing.rows_of(expert) + routing.count(expert));
  };
  EXPECT_EQ(rows(0), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(rows(1), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(rows(2), std::vector<int32_t>());
  EXPECT_EQ(rows(3), (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(routing.weights_of(3)[1], 4);
  for (const int64_t expert : {0, 1, 3}) {
    for (int64_t i = 0; i < routing.count(expert); ++i) {
      routing.weighted_of(expert)[i] = 10 * routing.weights_of(expert)[i];
    }
  }
  const View weighted = routing.Weighted(3);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(weighted.f32()[i], static_cast<float>(10 * i));
  }
}

TEST(Routing, DropoutOfAnExpertKnowsWhereItsRowsComeFrom) {
  Routing routing({.num_experts = 2, .num_experts_per_tok = 1}, 3);
  const std::vector<int32_t> chosen = {1, 0, 1};
  std::copy(chosen.begin(), chosen.end(), routing.chosen());
  routing.Group(3);
  const std::vector<int64_t> pack = {90, 7, 7, 8};  // the piece begins at row 1 of the tile
  const std::vector<int32_t> row = {91, 4, 5, 0};
  const Dropout tile{.probability = 0.5, .layer = 6, .pack = pack.data(), .row = row.data()};
  routing.GroupDropout(tile, 1);
  const Dropout of_last = routing.DropoutOf(tile, 1);
  EXPECT_EQ(of_last.expert, 1);
  EXPECT_EQ(of_last.layer, 6);
  EXPECT_EQ(std::vector<int64_t>(of_last.pack, of_last.pack + 2), (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(std::vector<int32_t>(of_last.row, of_last.row + 2), (std::vector<int32_t>{4, 0}));
  EXPECT_EQ(routing.DropoutOf(tile, 0).row[0], 5);
}

// Forward passes of training count, neither recomputation nor evaluation does.
TEST(Routing, CountsTheRowsOfEveryExpertOnce) {
  const ModelParams params{.dim = 32,
                           .n_layers = 3,
                           .head_dim = 16,
                           .hidden_dim = 24,
                           .n_heads = 2,
                           .n_kv_heads = 1,
                           .vocab_size = 96,
                           .moe = MoeParams{.num_experts = 5, .num_experts_per_tok = 2}};
  constexpr int32_t kRows = 600;  // two pieces
  testing::RandomWeights weights(params, 0.3F);
  LoraStore store(params, {.rank = 2, .target_modules = {"w1"}});
  Transformer model(weights, store, CpuKernels(), {.max_rows = kRows, .max_positions = kRows});
  std::vector<int32_t> tokens(kRows);
  for (int32_t i = 0; i < kRows; ++i) {
    tokens[static_cast<size_t>(i)] = i * 31 % 96;
  }
  const std::vector<float> row_weight(kRows, 1.0F / kRows);
  const std::vector<int32_t> cu_seqlens = {0, kRows};
  const Rows rows{tokens, tokens, row_weight, cu_seqlens};
  model.ForwardBackward(rows);
  model.Loss(rows);
  ASSERT_EQ(model.expert_rows().size(), 15U);
  for (size_t layer = 0; layer < 3; ++layer) {
    int64_t visits = 0;
    for (const int64_t count : model.expert_rows().subspan(5 * layer, 5)) {
      EXPECT_LE(count, kRows);
      visits += count;
    }
    EXPECT_EQ(visits, 2 * kRows) << layer;
  }
  model.ResetRouting();
  EXPECT_EQ(model.expert_rows()[0], 0);
}

}  // namespace
}  // namespace mft
