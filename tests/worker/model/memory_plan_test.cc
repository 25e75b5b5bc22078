// SPDX-License-Identifier: Apache-2.0
// The model takes what activation_plan.h says, which the daemon's estimate uses as well.
#include <gtest/gtest.h>

#include "common/checkpoint/activation_plan.h"
#include "worker/model/transformer.h"

namespace mft {
namespace {

TEST(MemoryPlan, IsThatOfTheSharedTable) {
  ModelParams params;
  params.dim = 64;
  params.n_layers = 3;
  params.head_dim = 16;
  params.hidden_dim = 160;
  params.n_heads = 4;
  params.n_kv_heads = 2;
  params.vocab_size = 512;
  const std::vector<std::string> modules = {"wq", "wv", "wo", "w2"};
  const LoraStore adapters(params, {.rank = 16, .target_modules = modules});
  const int64_t columns = LoraInnerColumns(params, 16, modules);
  constexpr int64_t kRows = 256;
  const auto near = [](int64_t bytes) { return static_cast<double>(bytes) * 0.01; };  // alignment
  for (const RecomputePolicy policy :
       {RecomputePolicy::kNothing, RecomputePolicy::kMlp, RecomputePolicy::kBlock}) {
    const MemoryPlan plan =
        Transformer::PlanMemory(params, adapters, {.policy = policy, .max_rows = kRows});
    const int64_t kept = KeptBytesPerToken(policy, params, columns, 4);
    const int64_t all = KeptBytesPerToken(RecomputePolicy::kNothing, params, columns, 4);
    const int64_t final_stream = params.dim * 4;
    const int64_t expected_kept = kRows * (params.n_layers * kept + final_stream);
    EXPECT_NEAR(plan.kept_activations, expected_kept, near(expected_kept));
    EXPECT_NEAR(plan.recomputed, kRows * (all - kept), near(kRows * all));
    const int64_t scratch = kRows * ScratchBytesPerToken(params, columns, 4);
    EXPECT_NEAR(plan.scratch, scratch, near(scratch));
  }
}

}  // namespace
}  // namespace mft
