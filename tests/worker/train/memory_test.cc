// SPDX-License-Identifier: Apache-2.0
// Peak memory of a real training process against the formula of worker/README.md.
#include <array>
#include <cstdio>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "common/checkpoint/activation_plan.h"
#include "tests/support/cache_builder.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/worker/train/train_run.h"

namespace mft {
namespace {

using testing::Ended;
using testing::TempDir;
using testing::TrainRun;

constexpr int64_t kSeqLen = 4096;
constexpr int64_t kRank = 16;
const std::vector<std::string> kModules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};

// Resident memory of the program before it loads anything.
int64_t BaselineBytes() {
  FILE* pipe = popen(MFT_BIN_DIR "/mft-worker info -o json", "r");
  std::array<char, 4096> text{};
  const size_t size = fread(text.data(), 1, text.size(), pipe);
  EXPECT_EQ(pclose(pipe), 0);
  return GetInt(ParseJson({text.data(), size}).value(), "memory_bytes").value();
}

// One step on a pack of four documents that fill seq_len. Returns the peak.
int64_t PeakBytes(const TempDir& dir, const ModelParams& params, bool recompute) {
  testing::WriteTinyModel(dir.File("model"), params);
  std::vector<testing::TestSample> samples(4);
  for (auto& sample : samples) {
    for (int32_t i = 0; i <= kSeqLen / 4; ++i) {
      sample.tokens.push_back(1 + i * 31 % static_cast<int32_t>(params.vocab_size - 1));
    }
  }
  testing::BuildCache(
      dir.File("tokens"), {{.files = {samples}}}, static_cast<int32_t>(params.vocab_size));
  TrainRun run(dir.File("job"), "dense");
  run.data_cache = dir.File("tokens");
  run.spec.model_id_or_path = dir.File("model");
  run.spec.mftd.init_adapter.clear();
  run.spec.mftd.packing = "whole";
  run.spec.lora.rank = kRank;
  run.spec.seq_len = kSeqLen;
  run.spec.max_steps = 1;
  run.spec.checkpoint = recompute;
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, 0) << ended.log;
  const auto steps = run.Records<StepRecord>();
  EXPECT_EQ(steps.size(), 1U);
  EXPECT_EQ(steps.at(0).tokens, kSeqLen);
  return steps.back().peak_memory_bytes;
}

struct Formula {
  int64_t weights = 0;
  int64_t lora_states = 0;
  int64_t kept = 0;
  int64_t one_block = 0;    // every slot of one block
  int64_t full_logits = 0;  // what must not be there
};

Formula FormulaOf(const ModelParams& params, RecomputePolicy policy) {
  const int64_t inner = LoraInnerColumns(params, kRank, kModules);
  return {.weights = 4 * TotalParameters(params),
          .lora_states = 4 * 4 * LoraParameters(params, kRank, kModules),
          .kept = params.n_layers * kSeqLen * KeptBytesPerToken(policy, params, inner, 4),
          .one_block = kSeqLen * KeptBytesPerToken(RecomputePolicy::kNothing, params, inner, 4),
          .full_logits = 4 * kSeqLen * params.vocab_size};
}

ModelParams Model(int64_t layers) {
  return {.dim = 256,
          .n_layers = layers,
          .head_dim = 32,
          .hidden_dim = 704,
          .n_heads = 8,
          .n_kv_heads = 4,
          .vocab_size = 16'384};
}

TEST(Memory, WithoutRecomputingStaysBelowTheFormula) {
  TempDir dir;
  const ModelParams params = Model(8);
  const Formula f = FormulaOf(params, RecomputePolicy::kNothing);
  const int64_t peak = PeakBytes(dir, params, false) - BaselineBytes();
  EXPECT_LE(peak, f.weights + f.lora_states + f.kept * 13 / 10)
      << "weights " << FormatBytes(f.weights) << ", LoRA " << FormatBytes(f.lora_states)
      << ", kept " << FormatBytes(f.kept) << ", peak above the program itself "
      << FormatBytes(peak);
  EXPECT_LT(f.kept * 3 / 10, f.full_logits) << "full logits would go unnoticed";
}

TEST(Memory, RecomputingBlocksKeepsTheirInputsAndWorksOnOneBlockAtATime) {
  TempDir dir;
  const ModelParams params = Model(12);
  const Formula f = FormulaOf(params, RecomputePolicy::kBlock);
  const int64_t peak = PeakBytes(dir, params, true) - BaselineBytes();
  EXPECT_LE(peak, f.weights + f.lora_states + (f.kept + 2 * f.one_block) * 13 / 10)
      << "kept " << FormatBytes(f.kept) << ", one block " << FormatBytes(f.one_block)
      << ", peak above the program itself " << FormatBytes(peak);
  EXPECT_LT(peak, f.weights + f.lora_states + params.n_layers * f.one_block / 2)
      << "nothing seems to be recomputed";
}

}  // namespace
}  // namespace mft
