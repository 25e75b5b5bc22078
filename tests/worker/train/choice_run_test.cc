// SPDX-License-Identifier: Apache-2.0
// Runs in which evaluations decide: the best checkpoint, and an early end.
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/train/train_run.h"

namespace mft {
namespace {

using testing::Ended;
using testing::ReadJsonLines;
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
  run.spec.mftd.early_stop = {};
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

// Three runs from fresh adapters that differ in their seed alone.
TrainRun Seeds(const std::string& directory) {
  TrainRun run(directory, "dense");
  run.spec.mftd.init_adapter.clear();
  run.spec.max_steps = 10;
  run.spec.no_eval = false;
  run.spec.eval_freq = 5;
  run.spec.ckpt_freq = 4;
  run.spec.num_ckpt_keep = 2;
  run.spec.mftd.seeds = {5, 0, 11};
  return run;
}

Json SeedsFile(const TrainRun& run) {
  return ParseJson(ReadFile(run.RunFile("seeds.json")).value()).value();
}

TEST(Seeds, TheRunWithTheLowestEvalLossIsTheResult) {
  TempDir dir;
  TrainRun run = Seeds(dir.path() + "/a");
  run.spec.mftd.export_formats = {"mistral", "peft"};
  const Ended ended = run.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  // Steps of the job go up without a gap, evaluations and checkpoints count the same ones.
  const auto steps = run.Records<StepRecord>();
  ASSERT_EQ(steps.size(), 30U);
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i].step, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(steps[i].max_steps, 30);
  }
  EXPECT_EQ(Final(run).step, 30);
  const auto evals = run.Records<EvalRecord>();
  ASSERT_EQ(evals.size(), 6U);
  EXPECT_EQ(evals[3].step, 20);
  EXPECT_EQ(run.Records<CheckpointRecord>().back().step, 30);
  // The last evaluation of each run decides.
  const std::vector<double> last = {evals[1].eval_loss, evals[3].eval_loss, evals[5].eval_loss};
  EXPECT_NE(last[0], last[1]);
  const auto best = static_cast<size_t>(std::min_element(last.begin(), last.end()) - last.begin());
  const int64_t seed = run.spec.mftd.seeds[best];
  const Json file = SeedsFile(run);
  EXPECT_EQ(file["best"], seed);
  for (size_t i = 0; i < last.size(); ++i) {
    EXPECT_EQ(file["runs"][i]["seed"], run.spec.mftd.seeds[i]);
    EXPECT_EQ(file["runs"][i]["eval_loss"], last[i]);
  }
  EXPECT_NE(Final(run).message.find(StrCat("the best of 3 seeds is ", seed)), std::string::npos)
      << Final(run).message;
  EXPECT_EQ(ListCheckpointSteps(run.spec.run_dir), (std::vector<int64_t>{8, 10}));
  EXPECT_TRUE(PathExists(run.RunFile("exports/checkpoint_000010/peft/adapter_config.json")));
  EXPECT_FALSE(
      PathExists(run.RunFile(StrCat("seeds/", run.spec.mftd.seeds[(best + 1) % 3], "/exports"))));
  // It is bit by bit what a job of that seed alone gives.
  TrainRun alone = Seeds(dir.path() + "/b");
  alone.spec.seed = seed;
  alone.spec.mftd.seeds.clear();
  ASSERT_EQ(alone.Run().exit_code, 0);
  EXPECT_EQ(ReadFile(run.TrainedFile(10)).value(), ReadFile(alone.TrainedFile(10)).value());
  EXPECT_EQ(ReadJsonLines(run.RunFile("metrics.train.jsonl")).back()["step"], 10);
}

TEST(Seeds, ChooseAlikeWheneverTheyAreKilled) {
  TempDir dir;
  TrainRun undisturbed = Seeds(dir.path() + "/a");
  TrainRun killed = Seeds(dir.path() + "/b");
  ASSERT_EQ(undisturbed.Run().exit_code, 0);
  int64_t reached = 0;
  for (const int64_t step : {2, 7, 13, 19, 24, 30}) {
    killed.Start();
    killed.WaitFor([step](const Record& record) {
      const auto* body = std::get_if<StepRecord>(&record.body);
      return body != nullptr && body->step >= step;
    });
    killed.Signal(SIGKILL);
    killed.Wait();
    for (const StepRecord& record : killed.Records<StepRecord>()) {
      reached = std::max(reached, record.step);
    }
  }
  const Ended ended = killed.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  EXPECT_GE(reached, 24);
  EXPECT_EQ(SeedsFile(killed), SeedsFile(undisturbed));
  EXPECT_EQ(ReadFile(killed.TrainedFile(10)).value(),
            ReadFile(undisturbed.TrainedFile(10)).value());
}

TEST(Seeds, AStopEndsTheJobAndTheNextAttemptGoesOnAtThatSeed) {
  TempDir dir;
  TrainRun run = Seeds(dir.path());
  run.spec.max_steps = 60;
  run.spec.eval_freq = 60;
  run.Start();
  ASSERT_TRUE(run.WaitFor([](const Record& record) {
    const auto* body = std::get_if<StepRecord>(&record.body);
    return body != nullptr && body->step >= 65;
  }));
  run.Signal(SIGTERM);
  run.Wait();
  const FinalRecord final = Final(run);
  EXPECT_EQ(final.outcome, "stopped");
  EXPECT_GE(final.step, 65);
  EXPECT_NE(final.message.find("seed 0: stopped on request"), std::string::npos) << final.message;
  EXPECT_FALSE(PathExists(run.RunFile("checkpoints")));  // nothing is chosen yet
  ASSERT_EQ(run.Run().exit_code, 0);
  EXPECT_EQ(run.Records<StepRecord>().front().step, final.step + 1);
  EXPECT_EQ(run.Records<StepRecord>().back().step, 180);
}

TEST(Seeds, DoNotMixWithARunOfOne) {
  TempDir dir;
  TrainRun run = Seeds(dir.path() + "/a");
  run.spec.max_steps = 2;
  ASSERT_EQ(run.Run().exit_code, 0);
  run.spec.mftd.seeds.clear();
  EXPECT_EQ(run.Run().exit_code, 6);
  EXPECT_NE(Final(run).message.find("has the runs of several seeds"), std::string::npos);
  TrainRun one = Seeds(dir.path() + "/b");
  one.spec.max_steps = 2;
  one.spec.mftd.seeds.clear();
  ASSERT_EQ(one.Run().exit_code, 0);
  one.spec.mftd.seeds = {1, 2};
  EXPECT_EQ(one.Run().exit_code, 6);
  EXPECT_NE(Final(one).message.find("has the checkpoints of one run"), std::string::npos);
  EXPECT_TRUE(one.Records<StepRecord>().empty());
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
