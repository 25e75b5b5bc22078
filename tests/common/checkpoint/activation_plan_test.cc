// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/activation_plan.h"

#include <gtest/gtest.h>

#include "tests/support/mistral_7b.h"

namespace mft {
namespace {

using testing::Mistral7B;

const std::vector<std::string> kAllModules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};

double MiBPerToken(RecomputePolicy policy) {
  const ModelParams params = Mistral7B();
  const LoraColumns columns = LoraInnerColumns(params, 64, kAllModules);
  return static_cast<double>(KeptBytesPerToken(policy, params, columns, 2) * params.n_layers) /
         (1 << 20);
}

TEST(ActivationPlan, GivesTheKnownFiguresOf7B) {
  EXPECT_NEAR(MiBPerToken(RecomputePolicy::kNothing), 2.91, 0.005);
  EXPECT_NEAR(MiBPerToken(RecomputePolicy::kMlp), 1.16, 0.005);
  EXPECT_DOUBLE_EQ(MiBPerToken(RecomputePolicy::kBlock), 0.25);
}

TEST(ActivationPlan, ListsEachSlotOnceInOrder) {
  for (size_t i = 0; i < kActivationShapes.size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(kActivationShapes[i].slot), i);
  }
}

TEST(ActivationPlan, CountsTheExpertsThatATokenVisits) {
  ModelParams params = Mistral7B();
  const int64_t dense = KeptBytesPerToken(RecomputePolicy::kNothing, params, {}, 2);
  params.moe = MoeParams{};
  EXPECT_EQ(KeptBytesPerToken(RecomputePolicy::kNothing, params, {}, 2) - dense, 2 * 14336 * 2);
  const LoraColumns lora = LoraInnerColumns(params, 8, kAllModules);
  EXPECT_EQ(lora.per_row, 8 * 4);
  EXPECT_EQ(lora.per_expert, 8 * 3);
  EXPECT_EQ(lora.PerToken(params), 8 * (4 + 3 * 2));
}

// Experts work one after the other: one gate, up and SiLU(gate) * up, whatever their number.
TEST(ActivationPlan, WorksWithOneExpertAtATime) {
  ModelParams params = Mistral7B();
  const LoraColumns dense = LoraInnerColumns(params, 8, kAllModules);
  const int64_t before = WorkBytes(RecomputePolicy::kBlock, params, dense, 4, 512);
  params.moe = MoeParams{};
  const LoraColumns lora = LoraInnerColumns(params, 8, kAllModules);
  EXPECT_EQ(WorkBytes(RecomputePolicy::kBlock, params, lora, 4, 512) - before,
            512 * 4 * (params.dim + 8));  // rows of one expert, logits of the router
}

}  // namespace
}  // namespace mft
