// SPDX-License-Identifier: Apache-2.0
// Runs in which evaluations decide: the best checkpoint, and an early end.
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/train/train_run.h"

namespace mft {
namespace {

using testing::Ended;
using testing::TempDir;
using testing::TrainRun;

// Learns too fast: the eval loss falls, then rises.
TrainRun Overshooting(const std::string& directory) {
  TrainRun run(directory, "dense");
  run.spec.max_steps = 30;
  run.spec.optim.lr = 0.1;
  run.spec.no_eval = false;
  run.spec.eval_freq = 1;
  run.spec.num_ckpt_keep = 1;
  run.spec.mftd.keep_best = true;
  return run;
}

FinalRecord Final(const TrainRun& run) {
  const auto finals = run.Records<FinalRecord>();
  return finals.empty() ? FinalRecord{} : finals.back();
}

int64_t LowestEval(const TrainRun& run) {
  const auto evals = run.Records<EvalRecord>();
  return std::min_element(
             evals.begin(),
             evals.end(),
             [](const EvalRecord& a, const EvalRecord& b) { return a.eval_loss < b.eval_loss; })
      ->step;
}

std::string BestLink(const TrainRun& run) {
  std::error_code error;
  return std::filesystem::read_symlink(run.RunFile("checkpoints/best"), error).string();
}

Json ChoiceOf(const TrainRun& run, int64_t step) {
  return ParseJson(ReadFile(run.Checkpoint(step) + "/state/state.json").value()).value()["choice"];
}

TEST(KeepBest, KeepsTheCheckpointOfTheLowestEvalLossBesideTheNewest) {
  TempDir dir;
  TrainRun run = Overshooting(dir.path());
  run.spec.mftd.export_formats = {"mistral", "peft"};
  const Ended ended = run.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  const int64_t best = LowestEval(run);
  ASSERT_GT(best, 1);
  ASSERT_LT(best, 25) << "the eval loss was to rise again";
  EXPECT_EQ(ListCheckpointSteps(run.spec.run_dir), (std::vector<int64_t>{best, 30}));
  EXPECT_EQ(BestLink(run), std::filesystem::path(run.Checkpoint(best)).filename());
  EXPECT_EQ(ChoiceOf(run, 30)["best_step"], best);
  EXPECT_NE(Final(run).message.find(StrCat("the best checkpoint is that of step ", best)),
            std::string::npos)
      << Final(run).message;
  // The best is what is exported, also by an attempt that finds the run complete.
  const std::string exported =
      run.RunFile(StrCat("exports/",
                         std::filesystem::path(run.Checkpoint(best)).filename().string(),
                         "/peft/adapter_model.safetensors"));
  const std::string bytes = ReadFile(exported).value();
  auto adapter = testing::ReadTensors(run.TrainedFile(best));
  auto peft = testing::ReadTensors(exported);
  EXPECT_EQ(peft.at("base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"),
            adapter.at("layers.0.attention.wv.lora_B.weight"));
  ASSERT_TRUE(RemoveTree(run.RunFile("exports")).ok());
  ASSERT_TRUE(RemoveTree(run.RunFile("checkpoints/best")).ok());
  ASSERT_EQ(run.Run().exit_code, 0);
  EXPECT_EQ(ReadFile(exported).value(), bytes);
  EXPECT_EQ(BestLink(run), std::filesystem::path(run.Checkpoint(best)).filename());
}

TEST(KeepBest, ChoosesAlikeWheneverItIsKilled) {
  TempDir dir;
  TrainRun undisturbed = Overshooting(dir.path() + "/a");
  TrainRun killed = Overshooting(dir.path() + "/b");
  ASSERT_EQ(undisturbed.Run().exit_code, 0);
  for (const int64_t step : {3, 8, 14, 20, 26}) {
    killed.Start();
    killed.WaitFor([step](const Record& record) {
      const auto* body = std::get_if<EvalRecord>(&record.body);
      return body != nullptr && body->step >= step;
    });
    killed.Signal(SIGKILL);
    killed.Wait();
  }
  const Ended ended = killed.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  EXPECT_EQ(ChoiceOf(killed, 30), ChoiceOf(undisturbed, 30));
  EXPECT_EQ(BestLink(killed), BestLink(undisturbed));
  EXPECT_EQ(ListCheckpointSteps(killed.spec.run_dir),
            ListCheckpointSteps(undisturbed.spec.run_dir));
  EXPECT_EQ(ReadFile(killed.TrainedFile(30)).value(),
            ReadFile(undisturbed.TrainedFile(30)).value());
}

TEST(KeepBest, ABestThatIsDamagedIsForgottenWithAWord) {
  TempDir dir;
  TrainRun run = Overshooting(dir.path());
  ASSERT_EQ(run.Run().exit_code, 0);
  const int64_t best = LowestEval(run);
  std::filesystem::resize_file(run.TrainedFile(best), 100);
  run.spec.max_steps = 32;
  const Ended ended = run.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  EXPECT_NE(ended.log.find(StrCat("the best checkpoint, of step ", best, ", is gone")),
            std::string::npos)
      << ended.log;
  EXPECT_GT(ChoiceOf(run, 32)["best_step"].get<int64_t>(), 30);
}

// Nothing that it learns is an improvement: the first evaluation is, by being the first.
TrainRun Idle(const TempDir& dir) {
  TrainRun run(dir.path(), "dense");
  run.spec.max_steps = 20;
  run.spec.optim.lr = 1e-9;
  run.spec.no_eval = false;
  run.spec.eval_freq = 2;
  run.spec.mftd.early_stop = {.patience = 3, .min_delta = 0.01};
  return run;
}

TEST(EarlyStop, EndsWhenThePatienceIsUsedUp) {
  TempDir dir;
  TrainRun run = Idle(dir);
  Ended ended = run.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  EXPECT_EQ(Final(run).outcome, "done");
  EXPECT_EQ(Final(run).reason, "EARLY_STOP");
  EXPECT_EQ(Final(run).step, 8);
  EXPECT_NE(Final(run).message.find("stopped early after step 8 of 20: 3 evaluations"),
            std::string::npos)
      << Final(run).message;
  EXPECT_EQ(run.Records<EvalRecord>().size(), 4U);
  EXPECT_EQ(ListCheckpointSteps(run.spec.run_dir), std::vector<int64_t>{8});
  // It has ended, until somebody has more patience.
  ASSERT_EQ(run.Run().exit_code, 0);
  EXPECT_TRUE(run.Records<StepRecord>().empty());
  EXPECT_EQ(Final(run).reason, "EARLY_STOP");
  run.spec.mftd.early_stop.patience = 5;
  ASSERT_EQ(run.Run().exit_code, 0);
  EXPECT_EQ(run.Records<StepRecord>().front().step, 9);
  EXPECT_EQ(Final(run).step, 12);
  run.spec.mftd.early_stop.patience = 0;
  ASSERT_EQ(run.Run().exit_code, 0);
  EXPECT_EQ(Final(run).step, 20);
  EXPECT_EQ(Final(run).reason, "");
}

TEST(EarlyStop, CountsOnThroughAKill) {
  TempDir dir;
  TrainRun run = Idle(dir);
  run.spec.ckpt_freq = 1;
  run.Start();
  ASSERT_TRUE(run.WaitFor([](const Record& record) {
    const auto* body = std::get_if<CheckpointRecord>(&record.body);
    return body != nullptr && body->step >= 5;
  }));
  run.Signal(SIGKILL);
  run.Wait();
  ASSERT_EQ(run.Run().exit_code, 0);
  EXPECT_EQ(Final(run).step, 8);
}

TEST(Evaluation, WithoutATokenToPredictIsRefused) {
  TempDir dir;
  TrainRun run(dir.path(), "dense");
  run.spec.no_eval = false;
  run.UseEvalSamples({{.tokens = {1, 5, 6, 7}, .mask = {0, 0, 0, 0}}});
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, 6) << ended.log;
  EXPECT_NE(ended.log.find("no token of the evaluation data"), std::string::npos) << ended.log;
}

}  // namespace
}  // namespace mft
