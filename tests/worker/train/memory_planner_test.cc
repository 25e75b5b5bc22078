// SPDX-License-Identifier: Apache-2.0
// The predicted peak against the measured one of real processes, and what the planner chooses and
// refuses.
#include "worker/train/memory_planner.h"

#include <array>
#include <cstdio>

#include <gtest/gtest.h>

#include "common/base/json.h"
#include "common/base/strings.h"
#include "tests/support/emulated_device.h"
#include "tests/support/mistral_7b.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "worker/model/device_weights.h"

namespace mft {
namespace {

ModelParams Model(int64_t dim, int64_t layers, int64_t hidden) {
  return {.dim = dim,
          .n_layers = layers,
          .head_dim = 32,
          .hidden_dim = hidden,
          .n_heads = dim / 32,
          .n_kv_heads = dim / 64,
          .vocab_size = 16'384};
}

Json RunBenchProcess(const std::string& arguments) {
  const std::string command =
      StrCat(MFT_BIN_DIR "/mft-worker bench --rounds 1 --threads 1 -o json ", arguments);
  FILE* pipe = popen(command.c_str(), "r");
  std::array<char, 4096> text{};
  const size_t size = fread(text.data(), 1, text.size(), pipe);
  EXPECT_EQ(pclose(pipe), 0) << command;
  return ParseJson({text.data(), size}).value();
}

TEST(MemoryPlanner, PredictsThePeakOfEighteenConfigurations) {
  for (const ModelParams& params : {Model(256, 7, 704), Model(384, 5, 1024)}) {
    const testing::TempDir dir;
    testing::WriteTinyModel(dir.path(), params);
    for (const char* recompute : {"nothing", "mlp", "block"}) {
      for (const char* shape : {"--documents 4 --document-tokens 512 --rank 16",
                                "--documents 1 --document-tokens 2200 --rank 64",
                                "--documents 4 --document-tokens 512 --full"}) {
        const Json report =
            RunBenchProcess(StrCat("--model ", dir.path(), " --recompute ", recompute, " ", shape));
        const double ratio =
            report["predicted_bytes"].get<double>() / report["peak_bytes"].get<double>();
        EXPECT_NEAR(ratio, 1.0, 0.1) << params.dim << " " << recompute << " " << shape << ": "
                                     << FormatBytes(report["peak_bytes"].get<int64_t>());
      }
    }
  }
}

TEST(MemoryPlanner, CountsFp32WeightsAsMapped) {
  const testing::TempDir dir;
  const ModelParams params = Model(64, 1, 64);
  testing::WriteTinyModel(dir.path(), params);
  const WeightBytes bytes = WeightBytesOf(*ModelWeights::Open(dir.path(), params).value());
  EXPECT_EQ(bytes.mapped, 4 * TotalParameters(params));
  EXPECT_EQ(bytes.copied, 0);
}

MemoryJob Job() {
  return {.params = Model(256, 8, 704),
          // Offloading would spare nothing: all of it is the head.
          .weights = {.mapped = 0, .copied = int64_t{64} << 20, .head = int64_t{64} << 20},
          .target_modules = {"wq", "w1"},
          .microbatch_rows = 8192,
          .longest_document = 8192};
}

TEST(MemoryPlanner, RecomputesOnlyAsMuchAsTheMemoryMakesIt) {
  const MemoryJob job = Job();
  const auto chosen = [&](const RecomputePlan& fits, RecomputePolicy wish) {
    // The program's own size may move a little between the calls.
    const int64_t allowed = ForecastMemory(job, fits).needed() + (1 << 20);
    return ChooseMemory(job, wish, allowed).value().policy;
  };
  for (const auto policy :
       {RecomputePolicy::kNothing, RecomputePolicy::kMlp, RecomputePolicy::kBlock}) {
    EXPECT_EQ(chosen(policy, RecomputePolicy::kNothing), policy);
  }
  EXPECT_EQ(chosen(RecomputePolicy::kNothing, RecomputePolicy::kBlock), RecomputePolicy::kBlock);
  // A block more at a time: here each step spares tens of megabytes.
  for (const RecomputePlan& plan : {RecomputePlan(RecomputePolicy::kNothing, 3),
                                    RecomputePlan(RecomputePolicy::kNothing, 7),
                                    RecomputePlan(RecomputePolicy::kMlp, 1),
                                    RecomputePlan(RecomputePolicy::kMlp, 5)}) {
    EXPECT_EQ(chosen(plan, RecomputePolicy::kNothing), plan);
  }
  EXPECT_EQ(DescribePlan({RecomputePolicy::kNothing, 3}, 8),
            "mlp of 3 of 8 blocks, otherwise nothing");
  EXPECT_EQ(DescribePlan({RecomputePolicy::kMlp, 5}, 8), "block of 5 of 8 blocks, otherwise mlp");
  EXPECT_EQ(DescribePlan(RecomputePolicy::kMlp, 8), "mlp");
}

constexpr int64_t kMiB = int64_t{1} << 20;

MemoryJob LargeJob() {
  MemoryJob job = Job();
  job.weights = {.mapped = 900 * kMiB,
                 .copied = 0,
                 .head = 10 * kMiB,
                 .block = 20 * kMiB,
                 .blocks = 890 * kMiB};
  return job;
}

// With the memory that the job takes with this policy and placement.
MemoryChoice ChooseWith(const MemoryJob& job, RecomputePolicy policy, WeightPlacement placement) {
  // The program's own size may move a little between the calls.
  const int64_t allowed = ForecastMemory(job, policy, placement).peak() + 8 * kMiB;
  return ChooseMemory(job, RecomputePolicy::kNothing, allowed).value();
}

constexpr std::array kPolicies = {
    RecomputePolicy::kNothing, RecomputePolicy::kMlp, RecomputePolicy::kBlock};

TEST(MemoryPlanner, OffloadsWhatDoesNotFitHoweverMuchIsRecomputed) {
  MemoryJob job = LargeJob();
  const WeightBytes offloaded =
      ForecastMemory(job, RecomputePolicy::kMlp, WeightPlacement::kOffloaded).weights;
  EXPECT_EQ(offloaded.mapped, 0);
  EXPECT_EQ(offloaded.copied, 50 * kMiB);
  for (const auto policy : kPolicies) {
    const MemoryChoice choice = ChooseWith(job, policy, WeightPlacement::kOffloaded);
    EXPECT_EQ(choice.policy, policy);
    EXPECT_EQ(choice.placement, WeightPlacement::kOffloaded);
  }
  // In memory with everything recomputed before offloaded with nothing.
  const MemoryChoice choice = ChooseWith(job, RecomputePolicy::kBlock, WeightPlacement::kResident);
  EXPECT_EQ(choice.policy, RecomputePolicy::kBlock);
  EXPECT_EQ(choice.placement, WeightPlacement::kResident);
  job.full = true;  // what is trained is in memory
  EXPECT_EQ(ChooseWith(job, RecomputePolicy::kBlock, WeightPlacement::kResident).placement,
            WeightPlacement::kResident);
}

TEST(MemoryPlanner, ShardsAmongTheRanksBeforeItOffloads) {
  MemoryJob job = LargeJob();
  job.world_size = 4;
  const WeightBytes sharded =
      ForecastMemory(job, RecomputePolicy::kMlp, WeightPlacement::kSharded).weights;
  EXPECT_EQ(sharded.mapped, 890 * kMiB / 4);
  EXPECT_EQ(sharded.copied, 50 * kMiB);
  for (const auto policy : kPolicies) {
    const MemoryChoice choice = ChooseWith(job, policy, WeightPlacement::kSharded);
    EXPECT_EQ(choice.policy, policy);
    EXPECT_EQ(choice.placement, WeightPlacement::kSharded);
  }
  EXPECT_EQ(ChooseWith(job, RecomputePolicy::kBlock, WeightPlacement::kResident).placement,
            WeightPlacement::kResident);
  EXPECT_EQ(ChooseWith(job, RecomputePolicy::kBlock, WeightPlacement::kOffloaded).placement,
            WeightPlacement::kOffloaded);
  job.full = true;
  EXPECT_EQ(ChooseWith(job, RecomputePolicy::kBlock, WeightPlacement::kResident).placement,
            WeightPlacement::kResident);
}

TEST(MemoryPlanner, NamesTheLongestDocumentThatFits) {
  MemoryJob job = Job();
  job.longest_document = 3000;
  const int64_t allowed = ForecastMemory(job, RecomputePolicy::kBlock).needed() + (1 << 20);
  job.longest_document = 8192;
  const Status status = ChooseMemory(job, RecomputePolicy::kNothing, allowed).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  const std::string& message = status.message();
  const size_t at = message.find("at most ");
  ASSERT_NE(at, std::string::npos) << message;
  job.longest_document = std::stoll(message.substr(at + 8));
  EXPECT_GE(job.longest_document, 2900);
  EXPECT_LE(job.longest_document, 3300);
  job.microbatch_rows = job.longest_document;
  EXPECT_LE(ForecastMemory(job, RecomputePolicy::kBlock).needed(), allowed + (2 << 20));
}

TEST(MemoryPlanner, SaysThatNoLengthFits) {
  const Status status = ChooseMemory(Job(), RecomputePolicy::kNothing, int64_t{32} << 20).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_NE(status.message().find("no seq_len would fit"), std::string::npos) << status.message();
}

// FlashAttention's sums: 128 rows more a document, several of one where that leaves a device idle.
TEST(MemoryPlanner, CountsWhatAttentionsBackwardPassTakes) {
  MemoryJob job{.params = testing::Mistral7B(),
                .rank = 16,
                .target_modules = {"wq"},
                .microbatch_rows = 16'384,
                .longest_document = 16'384,
                .device = &testing::EmulatedKernels(true)};
  const auto program = [&] {
    return ForecastMemory(
               job, RecomputePolicy::kNothing, WeightPlacement::kResident, GpuSizes(16'384))
        .program;
  };
  const int64_t one_document = program();
  job.deterministic = true;  // 5 sums: 148 multiprocessors, 32 heads
  EXPECT_GT(program() - one_document, int64_t{3} * 16'384 * 4096 * 4);
  job.deterministic = false;
  job.mean_document = 40;
  EXPECT_GT(program() - one_document, int64_t{700} << 20);
}

// A model that no GPU holds: in parts on all of them, or on the host.
TEST(MemoryPlanner, MovesWeightsToADeviceThatDoesNotHoldThem) {
  const KernelTable& kernels = testing::EmulatedKernels(true);
  ModelParams params = testing::Mistral7B();
  params.n_layers *= 8;  // 113 GB in bf16
  MemoryJob job{.params = params,
                .rank = 16,
                .target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"},
                .microbatch_rows = 32'768,
                .longest_document = 2'048,
                .device = &kernels};
  const int64_t allowed = int64_t{79} << 30;
  const auto choose = [&] { return ChooseMemory(job, RecomputePolicy::kNothing, allowed); };
  EXPECT_EQ(choose().status().reason(), kReasonNotEnoughMemory);
  job.host_memory = int64_t{100} << 30;  // too little to pin
  EXPECT_EQ(choose().status().reason(), kReasonNotEnoughMemory);
  job.host_memory = int64_t{120} << 30;
  const MemoryChoice offloaded = choose().value();
  EXPECT_EQ(offloaded.placement, WeightPlacement::kOffloaded);
  // A chunk moves every block: as few of them as there can be.
  EXPECT_EQ(offloaded.sizes, GpuSizes(16'384));
  job.world_size = 8;
  const MemoryChoice sharded = choose().value();
  EXPECT_EQ(sharded.placement, WeightPlacement::kSharded);
  const DeviceWeightBytes bytes = DeviceWeightBytesOf(params, kernels.type);
  EXPECT_EQ(sharded.forecast.weights.copied, bytes.head + 2 * bytes.block + bytes.blocks / 8);
  EXPECT_LT(offloaded.forecast.weights.copied, sharded.forecast.weights.copied);
}

// A GPU's memory: nothing is computed twice as long as a shorter chunk fits.
TEST(MemoryPlanner, ShortensChunksOnADeviceBeforeItRecomputes) {
  const KernelTable& kernels = testing::EmulatedKernels(true);
  MemoryJob job{.params = testing::Mistral7B(),
                .rank = 16,
                .target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"},
                .microbatch_rows = 32'768,
                .longest_document = 2'048,
                .device = &kernels};
  const auto choose = [&](int64_t gibibytes) {
    return ChooseMemory(job, RecomputePolicy::kNothing, gibibytes << 30).value();
  };
  const MemoryChoice wide = choose(139);  // H200
  EXPECT_EQ(wide.policy, RecomputePlan(RecomputePolicy::kNothing));
  EXPECT_EQ(wide.sizes, GpuSizes(16'384));
  EXPECT_EQ(choose(79).sizes, GpuSizes(16'384));  // H100
  const MemoryChoice narrow = choose(39);         // A100 of 40 GB
  EXPECT_EQ(narrow.policy, RecomputePlan(RecomputePolicy::kNothing));
  EXPECT_LT(narrow.sizes.chunk_rows, 16'384);
  EXPECT_EQ(narrow.placement, WeightPlacement::kResident);
  const MemoryChoice least = choose(19);
  EXPECT_NE(least.policy, RecomputePlan(RecomputePolicy::kNothing));
  EXPECT_EQ(ChooseMemory(job, RecomputePolicy::kNothing, int64_t{10} << 30).status().reason(),
            kReasonNotEnoughMemory);
  // A base in fp8 leaves half of its bytes to activations.
  job.quantise = true;
  const MemoryForecast fp8 =
      ForecastMemory(job, RecomputePolicy::kNothing, WeightPlacement::kResident, GpuSizes(16'384));
  EXPECT_LT(fp8.weights.copied, wide.forecast.weights.copied * 6 / 10);
  // Its products have operands: the gradients of gate and up at once, and that of the residual
  // stream.
  EXPECT_EQ(fp8.activations - wide.forecast.activations,
            2 * QuantisedRowsBytes(16'384, job.params.hidden_dim) +
                QuantisedRowsBytes(16'384, job.params.dim));
}

}  // namespace
}  // namespace mft
