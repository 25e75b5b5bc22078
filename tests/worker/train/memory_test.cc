// SPDX-License-Identifier: Apache-2.0
// Peak memory (VmHWM) of a real training process: at most weights + LoRA states + 1.3 x the
// activations that the recompute policy keeps. tests/bench/job_memory_bench.cc measures larger
// jobs.
#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/worker/train/memory_run.h"

namespace mft {
namespace {

using testing::MeasureMemory;
using testing::MemoryFigures;

std::string Describe(const MemoryFigures& f) {
  return StrCat("weights ",
                FormatBytes(f.weights),
                ", LoRA ",
                FormatBytes(f.lora_states),
                ", kept ",
                FormatBytes(f.kept),
                ", bound ",
                FormatBytes(f.bound()),
                ", peak ",
                FormatBytes(f.peak),
                ", of which the program ",
                FormatBytes(f.program));
}

ModelParams Model(int64_t layers, int64_t dim, int64_t vocab_size) {
  return {.dim = dim,
          .n_layers = layers,
          .head_dim = 32,
          .hidden_dim = 704,
          .n_heads = dim / 32,
          .n_kv_heads = dim / 64,
          .vocab_size = vocab_size};
}

// The program itself, which the formula does not have, is in the peak as well.
TEST(Memory, OfAJobThatRecomputesNothing) {
  const MemoryFigures f = MeasureMemory({.params = Model(20, 256, 16'384),
                                         .policy = RecomputePolicy::kNothing,
                                         .document_rows = 4096});
  EXPECT_LE(f.peak, f.bound()) << Describe(f);
  EXPECT_LT(f.bound() - f.weights - f.lora_states - f.kept - f.program, f.full_logits)
      << "full logits would go unnoticed";
}

// Gate, up and x A of two experts for each row are kept, whatever the number of experts.
TEST(Memory, OfAJobWithExperts) {
  ModelParams params = Model(12, 256, 16'384);
  params.moe = MoeParams{.num_experts = 4, .num_experts_per_tok = 2};
  const MemoryFigures f =
      MeasureMemory({.params = params, .policy = RecomputePolicy::kNothing, .document_rows = 4096});
  EXPECT_LE(f.peak - f.program, f.bound()) << Describe(f);
  EXPECT_GT(f.peak - f.program, f.weights + f.lora_states + f.kept / 2) << Describe(f);
}

// The default. A model this small keeps less than the program itself takes, which is left out.
TEST(Memory, OfAJobThatRecomputesBlocks) {
  const MemoryFigures f =
      MeasureMemory({.params = Model(32, 512, 16'384), .documents = 8, .document_rows = 512});
  EXPECT_LE(f.peak - f.program, f.bound()) << Describe(f);
  EXPECT_LT(f.bound() - f.weights - f.lora_states - f.kept, f.full_logits)
      << "full logits would go unnoticed";
}

}  // namespace
}  // namespace mft
