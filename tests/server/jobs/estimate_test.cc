// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/mistral_7b.h"
#include "tests/support/temp_dir.h"

namespace mft::server {
namespace {
using mft::testing::Mistral7B;
using mft::testing::TempDir;
using ::testing::Contains;
using ::testing::HasSubstr;

JobSpec Recipe() {
  JobSpec spec;
  spec.seq_len = 32768;
  spec.max_steps = 300;
  spec.lora.rank = 64;
  spec.ckpt_freq = 100;
  return spec;
}

TEST(EstimateJob, GivesTheKnownFiguresOf7B) {
  const DataFacts data{
      .exact = true, .samples = 26'883, .tokens = 25'169'147, .loss_tokens = 20'000'000};
  const NodeFacts node{
      .device = "cuda", .precision = "bf16", .cores = 8, .flops_per_second = 250e12};
  const JobEstimate estimate = EstimateJob(Recipe(), Mistral7B(), data, node);
  EXPECT_TRUE(estimate.exact);
  EXPECT_EQ(estimate.tokens_per_step, 32768);
  EXPECT_NEAR(estimate.epochs * estimate.steps_per_epoch, 300, 1e-9);
  EXPECT_NEAR(estimate.steps_per_epoch, 768.1, 0.1);
  EXPECT_EQ(estimate.trainable_parameters, 167'772'160);  // 335.5 MB in bf16
  EXPECT_EQ(estimate.weights_bytes, 14'496'047'104);      // the published file's tensors
  EXPECT_NEAR(estimate.seconds, 300 * 32768 * 43.75e9 / 250e12, 5);
  EXPECT_EQ(estimate.disk_bytes, 3 * (167'772'160LL * 2 + 167'772'160LL * 12) + 25'169'147LL * 5);
  EXPECT_GT(estimate.memory_bytes, 14'496'047'104 + 167'772'160LL * 18 + (int64_t{8} << 30));
}

// Weights and adapters of every expert, activations and time of those that a token visits.
TEST(EstimateJob, CountsTheExpertsOfAMixture) {
  const NodeFacts node{.device = "cuda", .precision = "bf16", .flops_per_second = 250e12};
  ModelParams mixture = Mistral7B();
  mixture.moe = MoeParams{.num_experts = 8, .num_experts_per_tok = 2};
  JobSpec spec = Recipe();
  spec.checkpoint = false;
  const JobEstimate dense = EstimateJob(spec, Mistral7B(), {}, node);
  const JobEstimate experts = EstimateJob(spec, mixture, {}, node);
  EXPECT_EQ(experts.trainable_parameters, 960'495'616);
  EXPECT_EQ(experts.weights_bytes, 2 * TotalParameters(mixture));
  const int64_t kept = experts.memory_bytes - experts.weights_bytes -
                       experts.trainable_parameters * 18 -
                       (dense.memory_bytes - dense.weights_bytes - dense.trainable_parameters * 18);
  // Gate, up and x A of one expert more for each row of every layer.
  EXPECT_NEAR(static_cast<double>(kept), 32768.0 * 32 * 2 * (2 * 14336 + 3 * 64), 0.02 * kept);
  EXPECT_GT(experts.seconds, 1.7 * dense.seconds);
  EXPECT_LT(experts.seconds, 2 * dense.seconds);
}

// On the CPU weights stay as they are in the file, whatever is computed in.
TEST(EstimateJob, CountsMappedWeightsAsTheFileHasThem) {
  const NodeFacts cpu;
  constexpr int64_t kFile = 14'496'081'120;
  const JobEstimate unknown = EstimateJob(Recipe(), Mistral7B(), {}, cpu);
  const JobEstimate known = EstimateJob(Recipe(), Mistral7B(), {}, cpu, kFile);
  EXPECT_EQ(unknown.weights_bytes, 4 * TotalParameters(Mistral7B()));
  EXPECT_EQ(known.weights_bytes, kFile);
  EXPECT_EQ(unknown.memory_bytes - known.memory_bytes, unknown.weights_bytes - kFile);
  const NodeFacts cuda{.device = "cuda", .precision = "bf16"};
  EXPECT_EQ(EstimateJob(Recipe(), Mistral7B(), {}, cuda, kFile).weights_bytes,
            2 * TotalParameters(Mistral7B()));
  JobSpec spec = Recipe();
  spec.mftd.precision = "fp8";  // embeddings and head are bf16
  EXPECT_EQ(EstimateJob(spec, Mistral7B(), {}, cuda, kFile).weights_bytes,
            TotalParameters(Mistral7B()) + int64_t{2} * 32768 * 4096);
}

TEST(EstimateJob, MemoryFollowsTheRecomputePolicyAndSizes) {
  const NodeFacts node{.device = "cuda", .precision = "bf16"};
  JobSpec spec = Recipe();
  const int64_t recomputed = EstimateJob(spec, Mistral7B(), {}, node).memory_bytes;
  // Of the one block at work gate, up and residual take next to nothing; 0.02: q, k, v, attention.
  spec.checkpoint = false;
  const int64_t kept = EstimateJob(spec, Mistral7B(), {}, node).memory_bytes;
  EXPECT_NEAR(static_cast<double>(kept - recomputed) / 32768 / (1 << 20), 2.91 - 0.25 - 0.02, 0.01);
  spec.num_microbatches = 8;  // no more at a time
  EXPECT_EQ(EstimateJob(spec, Mistral7B(), {}, node).memory_bytes, kept);
  spec.mftd.target_modules = {"wq"};
  EXPECT_LT(EstimateJob(spec, Mistral7B(), {}, node).memory_bytes, kept);
}

TEST(EstimateJob, KeepsOneCheckpointMoreThanAskedWhileWriting) {
  JobSpec spec = Recipe();
  spec.max_steps = 1000;
  const auto disk = [&] { return EstimateJob(spec, Mistral7B(), {}, {}).disk_bytes; };
  const int64_t one = 167'772'160LL * (4 + 12);
  EXPECT_EQ(disk(), 4 * one);
  spec.num_ckpt_keep = 0;
  EXPECT_EQ(disk(), 10 * one);
  spec.ckpt_freq = 0;
  EXPECT_EQ(disk(), one);
  spec.no_ckpt = true;
  EXPECT_EQ(disk(), 0);
}

TEST(EstimateJob, SaysWhatItAssumes) {
  const JobEstimate cpu = EstimateJob(Recipe(), Mistral7B(), {.tokens = 10}, {.cores = 2});
  EXPECT_FALSE(cpu.exact);
  EXPECT_GT(cpu.seconds, 0);
  EXPECT_THAT(cpu.notes, Contains(HasSubstr("tokens are derived from file sizes")));
  EXPECT_THAT(cpu.notes, Contains(HasSubstr("each of 2 cores")));
  const JobEstimate cuda = EstimateJob(Recipe(), Mistral7B(), {}, {.device = "cuda"});
  EXPECT_EQ(cuda.seconds, 0);
  EXPECT_EQ(cuda.epochs, 0);
  EXPECT_THAT(cuda.notes, Contains(HasSubstr("time is unknown")));
}

TEST(DataFactsFromFiles, SumsSizesAndLinesOfEverySource) {
  const TempDir dir;
  JobSpec spec;
  spec.data.data = dir.Write("t.jsonl", "{\"text\": \"ab\"}\n{}");
  dir.Write("d/a.jsonl", "12345678\n");
  dir.Write("d/b.jsonl", "");
  spec.data.instruct_data = dir.File("d") + ":2";
  const DataFacts facts = DataFactsFromFiles(spec).value();
  EXPECT_FALSE(facts.exact);
  EXPECT_EQ(facts.samples, 3);
  EXPECT_EQ(facts.tokens, 5 + 3);
  spec.data.instruct_data = dir.File("none");
  EXPECT_THAT(DataFactsFromFiles(spec).status().message(),
              HasSubstr("data.instruct_data: The path"));
}

TEST(DataFactsFromFiles, ExtrapolatesTheLinesOfALargeFile) {
  const TempDir dir;
  JobSpec spec;
  std::string text;
  for (int i = 0; i < 40'000; ++i) {
    text += std::string(99, 'x') + "\n";
  }
  spec.data.instruct_data = dir.Write("big.jsonl", text);
  EXPECT_NEAR(static_cast<double>(DataFactsFromFiles(spec)->samples), 40'000, 5);
}

}  // namespace
}  // namespace mft::server
