// SPDX-License-Identifier: Apache-2.0
// Stopping and going on, as runner and daemon make an attempt do it.
#include <signal.h>

#include <fstream>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/train/train_run.h"
#include "worker/kernels/kernels.h"

namespace mft {
namespace {

using testing::Ended;
using testing::ReadJsonLines;
using testing::TempDir;
using testing::TrainRun;

// Long enough to be stopped in the middle.
TrainRun LongRun(const TempDir& dir,
                 const std::string& name,
                 int64_t max_steps = 150,
                 const std::string& fixture = "dense-headdim") {
  TrainRun run(dir.path() + "/" + name, fixture);
  run.spec.max_steps = max_steps;
  run.spec.no_eval = false;
  run.spec.eval_freq = 40;
  run.spec.num_ckpt_keep = 0;
  return run;
}

std::function<bool(const Record&)> StepAtLeast(int64_t step) {
  return [step](const Record& record) {
    const auto* body = std::get_if<StepRecord>(&record.body);
    return body != nullptr && body->step >= step;
  };
}

FinalRecord Final(const TrainRun& run) {
  const auto finals = run.Records<FinalRecord>();
  EXPECT_EQ(finals.size(), 1U);
  return finals.empty() ? FinalRecord{} : finals.back();
}

struct Steps {
  std::vector<int64_t> number;
  std::vector<double> loss, grad_norm;
  void Append(const TrainRun& run) {
    for (const StepRecord& step : run.Records<StepRecord>()) {
      number.push_back(step.step);
      loss.push_back(step.loss);
      grad_norm.push_back(step.grad_norm);
    }
  }
};

struct ResumeCase {
  const char* name;
  int threads;
  const char* fixture;
  double dropout;
  int ranks = 1;
};

class Resume : public ::testing::TestWithParam<ResumeCase> {};

TEST_P(Resume, AfterSigtermTheRemainingStepsAreBitwiseThoseOfAnUndisturbedRun) {
  TempDir dir;
  // Threads that wait for each other are slow on a busy machine.
  const int64_t last = GetParam().threads == 1 ? 150 : 60;
  TrainRun undisturbed = LongRun(dir, "a", last, GetParam().fixture);
  TrainRun stopped = LongRun(dir, "b", last, GetParam().fixture);
  undisturbed.threads = stopped.threads = GetParam().threads;
  undisturbed.ranks = stopped.ranks = GetParam().ranks;
  undisturbed.spec.lora.dropout = stopped.spec.lora.dropout = GetParam().dropout;
  ASSERT_EQ(undisturbed.Run().exit_code, 0);
  Steps expected;
  expected.Append(undisturbed);

  stopped.Start();
  ASSERT_TRUE(stopped.WaitFor(StepAtLeast(10)));
  stopped.Signal(SIGTERM);
  stopped.Signal(SIGTERM);
  Ended ended = stopped.Wait();
  ASSERT_EQ(Final(stopped).outcome, "stopped") << ended.log;
  const int64_t stop_step = Final(stopped).step;
  ASSERT_LT(stop_step, last);
  EXPECT_EQ(ListCheckpointSteps(stopped.spec.run_dir), std::vector<int64_t>{stop_step});
  Steps actual;
  actual.Append(stopped);

  ended = stopped.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  EXPECT_EQ(stopped.Records<ResumeRecord>().at(0).from_step, stop_step);
  EXPECT_EQ(ended.log.find("up to rounding"), std::string::npos) << ended.log;
  actual.Append(stopped);
  EXPECT_EQ(actual.number, expected.number);
  EXPECT_EQ(actual.loss, expected.loss);
  EXPECT_EQ(actual.grad_norm, expected.grad_norm);
  EXPECT_EQ(ReadFile(stopped.TrainedFile(last)).value(),
            ReadFile(undisturbed.TrainedFile(last)).value());
  EXPECT_EQ(ReadFile(stopped.Checkpoint(last) + "/state/optimizer.safetensors").value(),
            ReadFile(undisturbed.Checkpoint(last) + "/state/optimizer.safetensors").value());
  // Each step once in the metric files, whatever was written before the stop.
  const auto lines = ReadJsonLines(stopped.RunFile("metrics.train.jsonl"));
  ASSERT_EQ(lines.size(), static_cast<size_t>(last));
  EXPECT_EQ(lines.back()["loss"], expected.loss.back());
  EXPECT_EQ(ReadJsonLines(stopped.RunFile("metrics.eval.jsonl")).size(),
            static_cast<size_t>(last / 40 + 1));
}

INSTANTIATE_TEST_SUITE_P(Jobs,
                         Resume,
                         ::testing::Values(ResumeCase{"OneThread", 1, "dense-headdim", 0},
                                           ResumeCase{"TwoThreads", 2, "dense-headdim", 0},
                                           ResumeCase{"ExpertsAndDropout", 1, "moe", 0.1},
                                           ResumeCase{"EveryWeight", 2, "full", 0},
                                           ResumeCase{"TwoRanks", 1, "moe", 0.1, 2},
                                           ResumeCase{"EveryWeightOnTwoRanks", 1, "full", 0, 2}),
                         [](const auto& job) { return job.param.name; });

TEST(Resume, AKilledRunGoesOnFromItsNewestGoodCheckpoint) {
  TempDir dir;
  TrainRun run = LongRun(dir, "a");
  run.spec.ckpt_freq = 10;
  run.Start();
  ASSERT_TRUE(run.WaitFor(StepAtLeast(35)));
  run.Signal(SIGKILL);
  ASSERT_EQ(run.Wait().signal, SIGKILL);
  const auto steps = ListCheckpointSteps(run.spec.run_dir);
  ASSERT_GE(steps.size(), 3U);
  // The newest one is damaged, and a writer left half a checkpoint.
  std::ofstream(run.Checkpoint(steps.back()) + "/consolidated/lora.safetensors", std::ios::app)
      << "x";
  ASSERT_TRUE(MakeDirs(run.RunFile("checkpoints/tmp.0123")).ok());
  const Ended ended = run.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  EXPECT_EQ(run.Records<ResumeRecord>().at(0).from_step, steps[steps.size() - 2]);
  EXPECT_NE(ended.log.find("did not verify"), std::string::npos) << ended.log;
  EXPECT_TRUE(PathExists(run.Checkpoint(steps.back()) + ".bad-0123456789abcdef"));
  EXPECT_FALSE(PathExists(run.RunFile("checkpoints/tmp.0123")));
  EXPECT_EQ(ReadJsonLines(run.RunFile("metrics.train.jsonl")).size(), 150U);
}

TEST(Resume, EndsAtOnceWhenTheNewestCheckpointIsTheLastStep) {
  TempDir dir;
  TrainRun run = LongRun(dir, "a", 5);
  ASSERT_EQ(run.Run().exit_code, 0);
  ASSERT_EQ(run.Run().exit_code, 0);
  EXPECT_TRUE(run.Records<StepRecord>().empty());
  EXPECT_EQ(Final(run).outcome, "done");
  EXPECT_EQ(Final(run).step, 5);
  EXPECT_EQ(ReadJsonLines(run.RunFile("metrics.train.jsonl")).size(), 5U);
}

TEST(Resume, SigtermBeforeTheFirstStepStopsWithoutACheckpoint) {
  TempDir dir;
  TrainRun run = LongRun(dir, "a");
  run.Start();
  run.Signal(SIGTERM);  // blocked until the worker has a handler
  const Ended ended = run.Wait();
  EXPECT_EQ(Final(run).outcome, "stopped") << ended.log;
  EXPECT_EQ(ended.exit_code, 130);
  EXPECT_EQ(Final(run).step, 0);
  EXPECT_TRUE(ListCheckpointSteps(run.spec.run_dir).empty());
}

TEST(Resume, Sigusr1WritesACheckpointAndGoesOn) {
  TempDir dir;
  TrainRun run = LongRun(dir, "a");
  run.Start();
  ASSERT_TRUE(run.WaitFor(StepAtLeast(5)));
  run.Signal(SIGUSR1);
  ASSERT_TRUE(run.WaitFor(
      [](const Record& record) { return std::holds_alternative<CheckpointRecord>(record.body); }));
  ASSERT_EQ(run.Wait().exit_code, 0);
  const auto checkpoints = run.Records<CheckpointRecord>();
  ASSERT_EQ(checkpoints.size(), 2U);
  EXPECT_LT(checkpoints[0].step, 150);
  EXPECT_EQ(checkpoints[1].step, 150);
}

TEST(Resume, FromACheckpointOfAnotherRunRestoresItsFullState) {
  TempDir dir;
  TrainRun whole = LongRun(dir, "a", 12);
  whole.spec.ckpt_freq = 6;
  ASSERT_EQ(whole.Run().exit_code, 0);
  TrainRun second = LongRun(dir, "b", 12);
  second.spec.mftd.init_adapter.clear();
  second.spec.mftd.resume_from = whole.Checkpoint(6);
  const Ended ended = second.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  Steps expected;
  expected.Append(whole);
  Steps actual;
  actual.Append(second);
  EXPECT_EQ(actual.number, (std::vector<int64_t>{7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(actual.loss, std::vector<double>(expected.loss.begin() + 6, expected.loss.end()));
  EXPECT_EQ(ReadJsonLines(second.RunFile("metrics.train.jsonl")).size(), 6U);
  EXPECT_EQ(ListCheckpointSteps(second.spec.run_dir), std::vector<int64_t>{12});

  second = LongRun(dir, "c", 6);
  second.spec.mftd.init_adapter.clear();
  second.spec.mftd.resume_from = whole.Checkpoint(6);
  EXPECT_EQ(second.Run().exit_code, 6);
  EXPECT_NE(Final(second).message.find("max_steps is 6"), std::string::npos)
      << Final(second).message;
}

TEST(Resume, DropoutGoesOnWithTheSameMasks) {
  TempDir dir;
  TrainRun whole = LongRun(dir, "a", 8);
  whole.spec.ckpt_freq = 4;
  whole.spec.lora.dropout = 0.2;
  ASSERT_EQ(whole.Run().exit_code, 0);
  TrainRun second = LongRun(dir, "b", 8);
  second.spec.lora.dropout = 0.2;
  second.spec.mftd.init_adapter.clear();
  second.spec.mftd.resume_from = whole.Checkpoint(4);
  ASSERT_EQ(second.Run().exit_code, 0);
  TrainRun plain = LongRun(dir, "c", 8);
  ASSERT_EQ(plain.Run().exit_code, 0);
  Steps expected;
  expected.Append(whole);
  Steps actual;
  actual.Append(second);
  Steps without;
  without.Append(plain);
  EXPECT_EQ(actual.loss, std::vector<double>(expected.loss.begin() + 4, expected.loss.end()));
  EXPECT_NE(expected.loss, without.loss);
  EXPECT_EQ(ReadFile(second.Checkpoint(8) + "/consolidated/lora.safetensors").value(),
            ReadFile(whole.Checkpoint(8) + "/consolidated/lora.safetensors").value());
}

// A checkpoint of a machine whose products in bf16 are others.
TEST(Resume, OnOtherKernelsTheRemainingStepsAreEqualUpToRounding) {
  if (CpuBf16Kernels() == nullptr) {
    GTEST_SKIP() << "no AVX512-BF16 here";
  }
  TempDir dir;
  TrainRun run(dir.path(), "dense-bf16");
  run.spec.max_steps = 2;
  run.spec.mftd.precision = "bf16";
  ASSERT_EQ(run.Run().exit_code, 0);
  const std::string manifest = run.Checkpoint(2) + "/state/MANIFEST";
  Json json = ParseJson(ReadFile(manifest).value()).value();
  EXPECT_EQ(json["plan"]["kernels"], CpuBf16Kernels()->name);
  json["plan"]["kernels"] = "cpu-other-bf16";
  ASSERT_TRUE(WriteFileAtomic(manifest, DumpJson(json)).ok());
  run.spec.max_steps = 3;
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_NE(
      ended.log.find(StrCat("up to rounding, not bit by bit: kernels \"cpu-other-bf16\" -> \"",
                            CpuBf16Kernels()->name,
                            "\"")),
      std::string::npos)
      << ended.log;
}

TEST(Resume, OtherDataSettingsAreRefused) {
  TempDir dir;
  TrainRun run = LongRun(dir, "a", 4);
  run.spec.ckpt_freq = 2;
  ASSERT_EQ(run.Run().exit_code, 0);
  run.spec.max_steps = 8;
  run.spec.num_microbatches = 3;
  EXPECT_EQ(run.Run().exit_code, 6);
  EXPECT_NE(Final(run).message.find("packs_per_step 2 -> 3"), std::string::npos)
      << Final(run).message;
  run.spec.num_microbatches = 2;
  run.spec.lora.rank = 4;
  EXPECT_EQ(run.Run().exit_code, 6);
  EXPECT_NE(Final(run).message.find("other trained weights"), std::string::npos)
      << Final(run).message;
}

TEST(Resume, OtherBaseWeightsAreRefused) {
  TempDir dir;
  TrainRun run = LongRun(dir, "a", 2);
  const std::string model = run.fixture_dir() + "/model/";
  for (const char* name : {"params.json", "consolidated.safetensors"}) {
    dir.Write(StrCat("model/", name), ReadFile(model + name).value());
  }
  run.spec.model_id_or_path = dir.File("model");
  ASSERT_EQ(run.Run().exit_code, 0);
  run.spec.max_steps = 4;
  std::string bytes = ReadFile(dir.File("model/consolidated.safetensors")).value();
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  dir.Write("model/consolidated.safetensors", bytes);
  EXPECT_EQ(run.Run().exit_code, 6);
  EXPECT_NE(Final(run).message.find("base_weights"), std::string::npos) << Final(run).message;
}

TEST(RunDir, IsNeverSharedAndNeverTakenFromAnother) {
  TempDir dir;
  TrainRun run = LongRun(dir, "a", 1'000'000);  // it is there until it is killed
  TrainRun rival = LongRun(dir, "b");
  rival.spec.run_dir = run.spec.run_dir;
  run.Start();
  ASSERT_TRUE(run.WaitFor(StepAtLeast(1)));
  EXPECT_EQ(rival.Run().exit_code, 6);
  EXPECT_EQ(Final(rival).reason, "RUN_DIR_IN_USE");
  EXPECT_NE(Final(rival).message.find("still running"), std::string::npos) << Final(rival).message;
  run.Signal(SIGKILL);
  run.Wait();

  TrainRun stranger = LongRun(dir, "c");
  dir.Write("full/notes.txt", "mine");
  stranger.spec.run_dir = dir.File("full");
  EXPECT_EQ(stranger.Run().exit_code, 6);
  EXPECT_NE(Final(stranger).message.find("notes.txt"), std::string::npos)
      << Final(stranger).message;
  dir.Write("taken/.mft.json", "{\"version\":1,\"job_id\":\"jother\"}");
  stranger.spec.run_dir = dir.File("taken");
  EXPECT_EQ(stranger.Run().exit_code, 6);
  EXPECT_NE(Final(stranger).message.find("job jother"), std::string::npos)
      << Final(stranger).message;
}

}  // namespace
}  // namespace mft
