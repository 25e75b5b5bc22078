// SPDX-License-Identifier: Apache-2.0
// The model takes what activation_plan.h says, which the daemon's estimate uses as well.
#include <optional>

#include <gtest/gtest.h>

#include "common/checkpoint/activation_plan.h"
#include "worker/model/transformer.h"

namespace mft {
namespace {

class MemoryPlans : public ::testing::TestWithParam<std::optional<MoeParams>> {};

INSTANTIATE_TEST_SUITE_P(Models,
                         MemoryPlans,
                         ::testing::Values(std::nullopt, MoeParams{8, 2}),
                         [](const auto& moe) { return moe.param ? "Experts" : "Dense"; });

TEST_P(MemoryPlans, AreThoseOfTheSharedTable) {
  ModelParams params;
  params.moe = GetParam();
  params.dim = 64;
  params.n_layers = 3;
  params.head_dim = 16;
  params.hidden_dim = 160;
  params.n_heads = 4;
  params.n_kv_heads = 2;
  params.vocab_size = 512;
  const std::vector<std::string> modules = {"wq", "wv", "wo", "w2"};
  const LoraStore adapters(params, {.rank = 16, .target_modules = modules});
  const LoraColumns columns = LoraInnerColumns(params, 16, modules);
  constexpr int64_t kRows = 2048;
  constexpr int64_t kLongest = 700;
  const auto near = [](int64_t bytes) { return static_cast<double>(bytes) * 0.01; };  // alignment
  for (const RecomputePolicy policy :
       {RecomputePolicy::kNothing, RecomputePolicy::kMlp, RecomputePolicy::kBlock}) {
    const MemoryPlan plan =
        Transformer::PlanMemory(params,
                                adapters.inner_cols(),
                                {.policy = policy, .max_rows = kRows, .max_positions = kLongest});
    const int64_t kept = KeptBytesPerToken(policy, params, columns, 4);
    const int64_t final_stream = params.dim * 4;
    const int64_t expected_kept = kRows * (params.n_layers * kept + final_stream);
    EXPECT_NEAR(plan.kept_activations, expected_kept, near(expected_kept));
    const int64_t work = WorkBytes(policy, params, columns, 4, kLongest);
    EXPECT_NEAR(plan.work, work, near(work));
    EXPECT_EQ(plan.total(), plan.kept_activations + std::max(plan.work, plan.loss));
  }
}

TEST(MemoryPlan, EachBlockHasItsPolicy) {
  const ModelParams params{.dim = 64,
                           .n_layers = 5,
                           .head_dim = 16,
                           .hidden_dim = 160,
                           .n_heads = 4,
                           .n_kv_heads = 4,
                           .vocab_size = 512};
  constexpr int64_t kRows = 2048;
  const auto plan = [&](const RecomputePlan& policy) {
    return Transformer::PlanMemory(
        params, {}, {.policy = policy, .max_rows = kRows, .max_positions = 300});
  };
  const MemoryPlan nothing = plan(RecomputePolicy::kNothing);
  const MemoryPlan mlp = plan(RecomputePolicy::kMlp);
  const MemoryPlan block = plan(RecomputePolicy::kBlock);
  const int64_t gate_and_up = kRows * 2 * 160 * 4;
  EXPECT_EQ(nothing.kept_activations - mlp.kept_activations, 5 * gate_and_up);
  EXPECT_EQ(plan({RecomputePolicy::kNothing, 2}).kept_activations,
            nothing.kept_activations - 2 * gate_and_up);
  EXPECT_EQ(plan({RecomputePolicy::kNothing, 2}).work, mlp.work);
  const int64_t rest = (mlp.kept_activations - block.kept_activations) / 5;
  EXPECT_EQ(plan({RecomputePolicy::kMlp, 3}).kept_activations, mlp.kept_activations - 3 * rest);
  EXPECT_EQ(plan({RecomputePolicy::kMlp, 3}).work, block.work);
}

// By hand for D 64, H E 64, K E 32, H 4, F 160, S 64 and blocks that are computed again.
TEST(MemoryPlan, CountsEachPieceOfSharedMemoryOnce) {
  const ModelParams params{.dim = 64,
                           .n_layers = 3,
                           .head_dim = 16,
                           .hidden_dim = 160,
                           .n_heads = 4,
                           .n_kv_heads = 2,
                           .vocab_size = 512};
  const int64_t tile = 2 * 64 + 2 * 32 +
                       64  // norm and dq, residual and d_attention; dk, dv; d_inner
                       + 64 + 2 * 32 + 64 + 4 + 64;  // q; k, v; attention; lse; x A
  const int64_t mlp = 3 * 160;                       // act, gate, up
  EXPECT_EQ(WorkBytes(RecomputePolicy::kBlock, params, {64}, 4, 700), 4 * (700 * tile + 512 * mlp));
  EXPECT_EQ(WorkBytes(RecomputePolicy::kNothing, params, {64}, 4, 300),
            4 * (300 * (2 * 64 + 2 * 32 + 64) + 300 * 160));
}

TEST(MemoryPlan, ChunksAndTilesHoldTheLongestSegment) {
  EXPECT_EQ(ChunkRows(64, 50), 64);
  EXPECT_EQ(ChunkRows(512 * 16, 512), 2048);
  EXPECT_EQ(ChunkRows(32'768, 9'000), 9'000);
  EXPECT_EQ(TileRows(64, 50), 64);
  EXPECT_EQ(TileRows(2048, 50), 512);
  EXPECT_EQ(TileRows(2048, 1500), 1500);
  EXPECT_EQ(TileRows(9'000, 9'000), 9'000);
}

}  // namespace
}  // namespace mft
