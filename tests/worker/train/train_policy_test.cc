// SPDX-License-Identifier: Apache-2.0
// What `mft-worker train` does when something is not as it should be, and what it leaves behind.
#include <signal.h>
#include <sys/mount.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/model_weights.h"
#include "common/config/yaml_reader.h"
#include "tests/support/cache_builder.h"
#include "tests/support/fixtures.h"
#include "tests/support/mistral_7b.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/worker/train/train_run.h"

namespace mft {
namespace {

using testing::Ended;
using testing::Fixture;
using testing::ReadTensors;
using testing::TempDir;
using testing::TrainRun;

FinalRecord Final(const TrainRun& run) {
  const auto finals = run.Records<FinalRecord>();
  EXPECT_EQ(finals.size(), 1U);
  return finals.empty() ? FinalRecord{} : finals.back();
}

// The first update is so large that the loss of the second step is not a number.
TrainRun Exploding(const TempDir& dir, const std::string& policy) {
  TrainRun run(dir.path() + "/" + policy, "dense");
  run.spec.optim.lr = 1e37;
  run.spec.optim.pct_start = 0;
  run.spec.mftd.nonfinite = policy;
  return run;
}

// The limit keeps the test from harm should the job be tried after all.
TEST(Memory, AJobThatCannotFitIsRefusedBeforeItIsLoaded) {
  TempDir dir;
  testing::WriteSparseModel(dir.File("7b"), testing::Mistral7B());
  TrainRun run(dir.path() + "/run", "dense");
  run.spec.model_id_or_path = dir.File("7b");
  run.spec.mftd.init_adapter.clear();
  run.spec.lora.rank = 4096;  // 160 GiB of adapters
  run.data_limit = int64_t{16} << 30;
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, 7) << ended.log;
  EXPECT_EQ(Final(run).outcome, "failed");
  EXPECT_EQ(Final(run).reason, "NOT_ENOUGH_MEMORY");
  EXPECT_NE(Final(run).message.find("allowed are 16.0 GiB: no seq_len would fit"),
            std::string::npos)
      << Final(run).message;
  EXPECT_TRUE(run.Records<StepRecord>().empty());
}

// A model of twice the memory that is allowed.
TEST(Memory, ABaseThatDoesNotFitIsReadABlockAtATimeWithTheSameLosses) {
  TempDir dir;
  const ModelParams params{.dim = 512,
                           .n_layers = 40,
                           .head_dim = 64,
                           .hidden_dim = 2048,
                           .n_heads = 8,
                           .n_kv_heads = 4,
                           .vocab_size = 512};
  testing::WriteTinyModel(dir.File("model"), params);
  const int64_t base = WeightFileBytes(dir.File("model")).value();
  const int64_t allowed = base / 2;
  std::vector<std::vector<double>> losses;
  for (const bool offloaded : {false, true}) {
    TrainRun run(dir.path() + (offloaded ? "/offloaded" : "/resident"), "dense");
    run.spec.model_id_or_path = dir.File("model");
    run.spec.mftd.init_adapter.clear();
    run.spec.max_steps = 3;
    run.spec.no_eval = false;
    run.spec.eval_freq = 2;
    run.data_limit = offloaded ? allowed : 0;
    const Ended ended = run.Run();
    ASSERT_EQ(ended.exit_code, 0) << ended.log;
    EXPECT_EQ(ended.log.find("the weights are offloaded") != std::string::npos, offloaded)
        << ended.log;
    const auto steps = run.Records<StepRecord>();
    losses.emplace_back();
    for (const StepRecord& step : steps) {
      losses.back().push_back(step.loss);
      losses.back().push_back(step.grad_norm);
    }
    losses.back().push_back(run.Records<EvalRecord>().back().eval_loss);
    // VmHWM has the mapped pages too.
    EXPECT_EQ(steps.back().peak_memory_bytes <= allowed, offloaded)
        << FormatBytes(steps.back().peak_memory_bytes) << " of " << FormatBytes(allowed);
  }
  EXPECT_EQ(losses[0].size(), 7U);
  EXPECT_EQ(losses[0], losses[1]);
}

TEST(Memory, OnlySoManyBlocksAreRecomputedAsTheMemoryAsks) {
  TempDir dir;
  const ModelParams params{.dim = 256,
                           .n_layers = 12,
                           .head_dim = 32,
                           .hidden_dim = 704,
                           .n_heads = 8,
                           .n_kv_heads = 4,
                           .vocab_size = 512};
  testing::WriteTinyModel(dir.File("model"), params);
  testing::TestSample document;
  for (int32_t i = 0; i <= 2048; ++i) {
    document.tokens.push_back(1 + i * 31 % 511);
  }
  testing::BuildCache(dir.File("tokens"), {{.files = {{document}}}}, 512);
  std::vector<StepRecord> last;
  // Gate and up of a block take 11 MiB, all that is kept of it 30 MiB.
  for (const int64_t spared : {0, 60, 160}) {
    TrainRun run(dir.path() + StrCat("/spared", spared), "dense");
    run.data_cache = dir.File("tokens");
    run.spec.model_id_or_path = dir.File("model");
    run.spec.mftd.init_adapter.clear();
    run.spec.mftd.packing = "whole";
    run.spec.seq_len = 2048;
    run.spec.max_steps = 2;
    run.spec.checkpoint = false;
    if (spared > 0) {
      run.data_limit = last[0].peak_memory_bytes - (spared << 20);
    }
    const Ended ended = run.Run();
    ASSERT_EQ(ended.exit_code, 0) << ended.log;
    const std::string what = spared == 0    ? "backward pass: nothing"
                             : spared == 60 ? " of 12 blocks, otherwise nothing, since"
                                            : " of 12 blocks, otherwise mlp, since";
    EXPECT_NE(ended.log.find(what), std::string::npos) << ended.log;
    const auto steps = run.Records<StepRecord>();
    ASSERT_EQ(steps.size(), 2U);
    EXPECT_LE(steps.back().peak_memory_bytes, spared == 0 ? INT64_MAX : run.data_limit);
    if (spared == 0) {
      last = steps;
    }
    EXPECT_EQ(steps[1].loss, last[1].loss);
    EXPECT_EQ(steps[1].grad_norm, last[1].grad_norm);
  }
}

TEST(Memory, TheForecastIsInTheLog) {
  TempDir dir;
  for (const bool recompute : {true, false}) {
    TrainRun run(dir.path() + (recompute ? "/block" : "/nothing"), "dense");
    run.spec.max_steps = 1;
    run.spec.checkpoint = recompute;
    const std::string log = run.Run().log;
    EXPECT_NE(log.find(recompute ? "recomputed in the backward pass: block"
                                 : "recomputed in the backward pass: nothing"),
              std::string::npos)
        << log;
  }
}

TEST(Nonfinite, FailEndsTheJobBeforeTheOptimizerMoves) {
  TempDir dir;
  TrainRun run = Exploding(dir, "fail");
  run.spec.ckpt_freq = 1;
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, 1) << ended.log;
  EXPECT_EQ(Final(run).outcome, "failed");
  EXPECT_EQ(Final(run).reason, "NONFINITE_LOSS");
  EXPECT_EQ(Final(run).step, 1);
  EXPECT_NE(Final(run).message.find("step 2"), std::string::npos) << Final(run).message;
  const auto steps = run.Records<StepRecord>();
  ASSERT_EQ(steps.size(), 2U);
  EXPECT_FALSE(steps[0].nonfinite);
  EXPECT_TRUE(steps[1].nonfinite);
  EXPECT_EQ(steps[1].step, 2);
  EXPECT_EQ(ListCheckpointSteps(run.spec.run_dir), std::vector<int64_t>{1});
}

TEST(Nonfinite, PauseStopsWithACheckpointOfTheStepBefore) {
  TempDir dir;
  TrainRun run = Exploding(dir, "pause");
  const Ended ended = run.Run();
  EXPECT_EQ(Final(run).outcome, "stopped") << ended.log;
  EXPECT_EQ(Final(run).reason, "NONFINITE_LOSS");
  EXPECT_EQ(ListCheckpointSteps(run.spec.run_dir), std::vector<int64_t>{1});
  for (const auto& [name, values] :
       ReadTensors(run.Checkpoint(1) + "/consolidated/lora.safetensors")) {
    for (const float value : values) {
      ASSERT_TRUE(std::isfinite(value)) << name;
    }
  }
}

TEST(Nonfinite, SkipGoesOnWithoutAnUpdateAndDoesNotAdvanceAdamsCounter) {
  TempDir dir;
  TrainRun run = Exploding(dir, "skip");
  run.spec.num_ckpt_keep = 0;
  run.spec.ckpt_freq = 1;
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, 0) << ended.log;
  const auto steps = run.Records<StepRecord>();
  ASSERT_EQ(steps.size(), 12U);
  EXPECT_FALSE(steps[0].skipped);
  for (size_t i = 1; i < steps.size(); ++i) {
    EXPECT_TRUE(steps[i].skipped && steps[i].nonfinite) << i;
  }
  const auto state = [&](int64_t step) {
    return ParseJson(ReadFile(run.Checkpoint(step) + "/state/state.json").value()).value();
  };
  EXPECT_EQ(state(1)["updates"], 1);
  EXPECT_EQ(state(12)["updates"], 1);
  EXPECT_EQ(state(12)["step"], 12);
  EXPECT_EQ(ReadFile(run.Checkpoint(1) + "/state/optimizer.safetensors").value(),
            ReadFile(run.Checkpoint(12) + "/state/optimizer.safetensors").value());
}

TEST(Nonfinite, ARunThatOnlySkipsFails) {
  TempDir dir;
  TrainRun run = Exploding(dir, "skip");
  run.spec.max_steps = 1000;
  EXPECT_EQ(run.Run().exit_code, 1);
  EXPECT_EQ(Final(run).reason, "NONFINITE_LOSS");
  EXPECT_EQ(Final(run).step, 101);
}

// What a full fine-tuning writes is a model directory like the one that it began with.
TEST(Checkpoint, OfAFullFineTuningIsAModel) {
  TempDir dir;
  TrainRun run(dir.path(), "full");
  run.spec.mftd.export_formats = {"mistral", "merged", "hf"};
  run.spec.mftd.precision = "auto";
  ASSERT_EQ(run.Run().exit_code, 0);
  const std::string model = run.Checkpoint(12) + "/consolidated";
  EXPECT_EQ(ListDir(model).value(),
            (std::vector<std::string>{"consolidated.safetensors", "params.json"}));
  const ModelParams params = ReadModelParams(model).value();
  EXPECT_FALSE(ReadLoraParams(model).value().has_value());
  EXPECT_TRUE(ModelWeights::Open(model, params).ok());
  const auto start = ReadTensors(run.spec.model_id_or_path + "/consolidated.safetensors");
  const auto merged =
      ReadTensors(run.RunFile("exports/checkpoint_000012/merged/consolidated.safetensors"));
  for (const auto& [name, values] : ReadTensors(model + "/consolidated.safetensors")) {
    EXPECT_NE(values, start.at(name)) << name;  // every one was trained
    EXPECT_EQ(values, merged.at(name)) << name;
  }
  EXPECT_TRUE(PathExists(run.RunFile("exports/checkpoint_000012/hf/model.safetensors")));
  // It is where another job can begin, and an adapter's job cannot go on from it.
  TrainRun next(dir.path() + "/next", "full");
  next.spec.model_id_or_path = model;
  next.spec.max_steps = 1;
  EXPECT_EQ(next.Run().exit_code, 0);
  TrainRun other(dir.path() + "/other", "full");
  other.spec.lora.enable = other.spec.save_adapters = true;
  other.spec.max_steps = 20;
  other.spec.mftd.resume_from = run.Checkpoint(12);
  const Ended ended = other.Run();
  EXPECT_EQ(ended.exit_code, 6) << ended.log;
  EXPECT_NE(ended.log.find("other trained weights"), std::string::npos) << ended.log;
}

TEST(Checkpoint, HasWhatMistralFinetuneWritesAndTheFullState) {
  TempDir dir;
  TrainRun run(dir.path(), "dense");
  run.spec.model_id_or_path = dir.File("model");
  for (const char* name : {"params.json", "consolidated.safetensors"}) {
    dir.Write(StrCat("model/", name), ReadFile(run.fixture_dir() + "/model/" + name).value());
  }
  dir.Write("model/tokenizer.model.v3", "a tokenizer");
  run.spec.ckpt_freq = 2;
  run.spec.num_ckpt_keep = 2;
  const Ended ended = run.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  EXPECT_EQ(ListCheckpointSteps(run.spec.run_dir), (std::vector<int64_t>{10, 12}));
  const std::string checkpoint = run.Checkpoint(12);
  EXPECT_EQ(ListDir(checkpoint + "/consolidated").value(),
            (std::vector<std::string>{"lora.safetensors", "params.json", "tokenizer.model.v3"}));
  EXPECT_EQ(ListDir(checkpoint + "/state").value(),
            (std::vector<std::string>{"MANIFEST", "optimizer.safetensors", "state.json"}));
  EXPECT_EQ(ReadFile(checkpoint + "/consolidated/tokenizer.model.v3").value(), "a tokenizer");
  const Json params = ParseJson(ReadFile(checkpoint + "/consolidated/params.json").value()).value();
  EXPECT_EQ(params["lora"]["scaling"], 2.0);
  EXPECT_EQ(params["lora"]["rank"], 4);
  const Manifest manifest = ReadManifest(checkpoint).value();
  EXPECT_EQ(manifest.job_id, "jfixture0000");
  EXPECT_EQ(manifest.plan["precision"], "fp32");
  EXPECT_EQ(manifest.plan["threads"], 1);
  EXPECT_TRUE(VerifyCheckpoint(checkpoint).ok());
  const auto records = run.Records<CheckpointRecord>();
  ASSERT_EQ(records.size(), 6U);
  EXPECT_EQ(records.back().path, checkpoint);
  EXPECT_EQ(records.back().removed, std::vector<std::string>{"checkpoint_000008"});
  EXPECT_GT(records.back().size_bytes, 100'000);
  const JobSpecResult args = ParseJobYaml(ReadFile(run.RunFile("args.yaml")).value());
  EXPECT_TRUE(args.violations.empty());
  EXPECT_EQ(args.spec.max_steps, 12);
}

std::map<std::string, std::string> FilesOf(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) {
      files[entry.path().string()] = ReadFile(entry.path().string()).value();
    }
  }
  return files;
}

TEST(Export, WhatAKilledAttemptDidNotWriteIsMadeByTheNextAlike) {
  TempDir dir;
  TrainRun run(dir.path(), "dense");
  run.spec.mftd.export_formats = {"mistral", "peft", "merged", "hf"};
  const Ended first = run.Run();
  ASSERT_EQ(first.exit_code, 0) << first.log;
  const std::string exports = run.RunFile("exports");
  const auto made = FilesOf(exports);
  for (const char* file : {"peft/adapter_model.safetensors",
                           "peft/adapter_config.json",
                           "merged/consolidated.safetensors",
                           "merged/params.json",
                           "hf/model.safetensors",
                           "hf/config.json",
                           "hf/generation_config.json"}) {
    EXPECT_EQ(made.count(exports + "/checkpoint_000012/" + file), 1U) << file;
  }
  EXPECT_EQ(made.size(), 7U);
  // As if killed while it wrote the last form.
  std::filesystem::rename(exports + "/checkpoint_000012/hf",
                          exports + "/checkpoint_000012/tmp.hf.0");
  const auto peft_time = std::filesystem::last_write_time(exports + "/checkpoint_000012/peft");
  const Ended second = run.Run();
  ASSERT_EQ(second.exit_code, 0) << second.log;
  EXPECT_TRUE(run.Records<StepRecord>().empty());
  EXPECT_EQ(FilesOf(exports), made);
  EXPECT_EQ(std::filesystem::last_write_time(exports + "/checkpoint_000012/peft"), peft_time);
}

// W + scaling B A, element by element in double.
std::vector<double> Merge(const std::vector<float>& base,
                          const std::vector<float>& a,
                          const std::vector<float>& b,
                          size_t rank,
                          double scaling) {
  std::vector<double> merged(base.begin(), base.end());
  const size_t in = a.size() / rank;
  for (size_t i = 0; i < merged.size(); ++i) {
    for (size_t r = 0; r < rank; ++r) {
      merged[i] += scaling * b[i / in * rank + r] * a[r * in + i % in];
    }
  }
  return merged;
}

struct MergeCase {
  const char* fixture;
  size_t rank;
  size_t adapted;  // matrices
};

class MergedModel : public ::testing::TestWithParam<MergeCase> {};

INSTANTIATE_TEST_SUITE_P(Fixtures,
                         MergedModel,
                         ::testing::Values(MergeCase{"dense", 4, 2 * 7},
                                           MergeCase{"moe", 2, 2 * (4 + 4 * 3)}),
                         [](const auto& c) { return c.param.fixture; });

TEST_P(MergedModel, IsTheBaseWithItsAdapterAdded) {
  TempDir dir;
  TrainRun run(dir.path(), GetParam().fixture);
  run.spec.save_adapters = false;
  const Ended ended = run.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  const std::string consolidated = run.Checkpoint(12) + "/consolidated";
  const auto merged = ReadTensors(consolidated + "/consolidated.safetensors");
  const auto base = ReadTensors(run.fixture_dir() + "/model/consolidated.safetensors");
  const auto state = ReadTensors(run.Checkpoint(12) + "/state/optimizer.safetensors");
  ASSERT_EQ(merged.size(), base.size());
  size_t adapted = 0;
  for (const auto& [name, values] : base) {
    const std::string stem = name.substr(0, name.size() - std::string(".weight").size());
    const auto a = state.find(stem + ".lora_A.weight.master");
    if (a == state.end()) {
      EXPECT_EQ(merged.at(name), values) << name;
      continue;
    }
    ++adapted;
    const auto expected =
        Merge(values, a->second, state.at(stem + ".lora_B.weight.master"), GetParam().rank, 2.0);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(merged.at(name)[i], expected[i], 1e-6) << name;
    }
  }
  EXPECT_EQ(adapted, GetParam().adapted);
  EXPECT_FALSE(ParseJson(ReadFile(consolidated + "/params.json").value())->contains("lora"));
  EXPECT_FALSE(PathExists(consolidated + "/lora.safetensors"));
}

TEST(Checkpoint, NoCkptWritesNone) {
  TempDir dir;
  TrainRun run(dir.path(), "dense");
  run.spec.no_ckpt = true;
  ASSERT_EQ(run.Run().exit_code, 0);
  EXPECT_TRUE(ListCheckpointSteps(run.spec.run_dir).empty());
}

struct BadStart {
  const char* name;
  void (*spoil)(TrainRun& run);
  int exit_code;
  const char* message;
};

class Refused : public ::testing::TestWithParam<BadStart> {};

TEST_P(Refused, WithOneClearMessage) {
  TempDir dir;
  TrainRun run(dir.path(), "dense");
  GetParam().spoil(run);
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, GetParam().exit_code) << ended.log;
  EXPECT_EQ(Final(run).outcome, "failed");
  EXPECT_NE(Final(run).message.find(GetParam().message), std::string::npos) << Final(run).message;
}

INSTANTIATE_TEST_SUITE_P(
    Starts,
    Refused,
    ::testing::Values(
        BadStart{"Cuda", [](TrainRun& run) { run.device = "cuda"; }, 6, "mftd.device cuda"},
        BadStart{"Ranks",
                 [](TrainRun& run) { run.environment["WORLD_SIZE"] = "2"; },
                 3,
                 "WORLD_SIZE says that 2"},
        BadStart{"Precision",
                 [](TrainRun& run) { run.spec.mftd.precision = "fp8"; },
                 3,
                 "mftd.precision"},
        BadStart{"Model",
                 [](TrainRun& run) { run.spec.model_id_or_path = "/nowhere/7B"; },
                 5,
                 "/nowhere/7B"},
        BadStart{
            "Cache", [](TrainRun& run) { run.data_cache = "/nowhere/cache"; }, 5, "/nowhere/cache"},
        BadStart{"Attempt",
                 [](TrainRun& run) { run.environment["MFT_ATTEMPT"] = "other"; },
                 6,
                 "MFT_ATTEMPT"},
        BadStart{"RunDir",
                 [](TrainRun& run) { run.spec.run_dir = run.fixture_dir() + "/config.json/run"; },
                 6,
                 "config.json"},
        BadStart{"Adapter",
                 [](TrainRun& run) {
                   run.spec.mftd.init_adapter =
                       Fixture("train/dense-headdim/lora_init.safetensors");
                 },
                 3,
                 "mftd.init_adapter"},
        BadStart{"Modules",
                 [](TrainRun& run) { run.spec.mftd.target_modules = {"wq"}; },
                 3,
                 "target modules"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(DiskFull, WaitsWithItsWeightsAndGoesOnWhenThereIsRoom) {
  TempDir dir;
  const std::string small = dir.File("small");
  ASSERT_TRUE(MakeDirs(small).ok());
  if (mount("tmpfs", small.c_str(), "tmpfs", 0, "size=400k") != 0) {
    GTEST_SKIP() << "no right to mount a small file system: "
                 << ErrnoStatus(errno, small).message();
  }
  {
    TrainRun run(dir.path(), "dense");
    run.spec.run_dir = small + "/run";
    std::ofstream(small + "/filler") << std::string(350'000, 'x');
    run.Start();
    const bool waited = run.WaitFor([](const Record& record) {
      const auto* phase = std::get_if<PhaseRecord>(&record.body);
      return phase != nullptr && phase->phase == kPhaseDiskFull;
    });
    EXPECT_TRUE(waited);
    EXPECT_TRUE(RemoveTree(small + "/filler").ok());
    const Ended ended = run.Wait();
    EXPECT_EQ(ended.exit_code, 0) << ended.log;
    EXPECT_TRUE(VerifyCheckpoint(run.Checkpoint(12)).ok());
  }
  umount2(small.c_str(), MNT_DETACH);
}

}  // namespace
}  // namespace mft
