// SPDX-License-Identifier: Apache-2.0
// What a step really takes, as the kernel counts it (VmHWM), against the plan.
#include <fstream>
#include <optional>
#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include "tests/worker/model/random_weights.h"
#include "worker/model/transformer.h"

namespace mft {
namespace {

int64_t StatusBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) {
      return std::stoll(line.substr(field.size() + 1)) * 1024;
    }
  }
  return -1;
}

// Makes VmHWM start again from what is resident now.
bool ResetPeak() {
  std::ofstream clear("/proc/self/clear_refs");
  clear << "5" << std::flush;
  return clear.good();
}

ModelParams Params(std::optional<MoeParams> moe) {
  ModelParams params;
  params.dim = 128;
  params.n_layers = 4;
  params.n_heads = 4;
  params.n_kv_heads = 2;
  params.head_dim = 32;
  params.hidden_dim = 352;
  params.vocab_size = 32000;
  params.rope_theta = 1e4;
  params.moe = moe;
  return params;
}

class PeakMemory
    : public ::testing::TestWithParam<std::tuple<RecomputePolicy, std::optional<MoeParams>>> {};

TEST_P(PeakMemory, StaysWithinThePlan) {
  constexpr int64_t kRows = 4096;
  const auto& [policy, moe] = GetParam();
  testing::RandomWeights weights(Params(moe));
  std::vector<int32_t> tokens(kRows, 5);
  const std::vector<float> row_weight(kRows, 1.0F / kRows);
  std::vector<int32_t> cu_seqlens;
  for (int32_t at = 0; at <= kRows; at += 128) {
    cu_seqlens.push_back(at);
  }
  if (!ResetPeak()) {
    GTEST_SKIP() << "/proc/self/clear_refs cannot be written here";
  }
  const int64_t before = StatusBytes("VmRSS");
  LoraStore store(weights.params(),
                  {.rank = 16, .target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"}});
  Transformer model(
      weights, store, CpuKernels(), {.policy = policy, .max_rows = kRows, .max_positions = 128});
  model.ForwardBackward({tokens, tokens, row_weight, cu_seqlens});
  const int64_t peak = StatusBytes("VmHWM") - before;
  const MemoryPlan& plan = model.plan();
  // Packed panels of matrix products, stacks of the threads, LibTorch's first call.
  constexpr int64_t kAround = 24 << 20;
  EXPECT_LT(peak, store.bytes() + plan.total() + kAround);
  // The step touches what it planned: the figures are not merely generous.
  EXPECT_GT(peak, (store.bytes() + plan.total()) / 2);
  // All logits would be 500 MiB.
  EXPECT_LT(plan.loss, 20 << 20);
  EXPECT_LT(static_cast<double>(peak),
            static_cast<double>(store.bytes()) + 1.3 * static_cast<double>(plan.kept_activations) +
                kAround);
}

INSTANTIATE_TEST_SUITE_P(Policies,
                         PeakMemory,
                         ::testing::Combine(::testing::Values(RecomputePolicy::kNothing,
                                                              RecomputePolicy::kMlp,
                                                              RecomputePolicy::kBlock),
                                            ::testing::Values(std::nullopt, MoeParams{6, 2})));

}  // namespace
}  // namespace mft
