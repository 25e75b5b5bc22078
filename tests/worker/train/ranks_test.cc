// SPDX-License-Identifier: Apache-2.0
// Jobs of several ranks: the same result on any number of them, one decision for all, and an end
// for all when one is lost.
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <memory>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/worker/train/train_run.h"

namespace mft {
namespace {

using testing::Ended;
using ::testing::HasSubstr;
using testing::TempDir;
using testing::TrainRun;

// `packs` of a step, one a microbatch, shared by `ranks`.
TrainRun SharedRun(const TempDir& dir,
                   const std::string& fixture,
                   int ranks,
                   int64_t max_steps,
                   int64_t packs = 4) {
  TrainRun run(StrCat(dir.path(), "/", fixture, "-", ranks), fixture);
  run.ranks = ranks;
  run.spec.batch_size = 1;
  run.spec.num_microbatches = packs / ranks;
  run.spec.max_steps = max_steps;
  run.spec.mftd.packing = "whole";
  run.spec.no_eval = false;
  run.spec.eval_freq = 20;
  return run;
}

std::vector<double> Losses(const TrainRun& run) {
  std::vector<double> losses;
  for (const StepRecord& step : run.Records<StepRecord>()) {
    losses.push_back(step.loss);
  }
  return losses;
}

// Of equal steps, in another order of summation: 2e-6 over the first ten, 1e-5 after.
void ExpectSameLosses(const std::vector<double>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_NEAR(actual[i] / expected[i], 1, i < 10 ? 2e-6 : 1e-5) << "step " << i + 1;
  }
}

struct SharedCase {
  const char* name;
  const char* fixture;
  const char* loss_norm;
  double dropout;
};

class OnAnyNumberOfRanks : public ::testing::TestWithParam<SharedCase> {};

TEST_P(OnAnyNumberOfRanks, StepsAreTheSame) {
  TempDir dir;
  std::vector<double> losses;
  std::vector<EvalRecord> evals;
  std::vector<double> norms;
  std::vector<double> expert_share;
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(ranks);
    TrainRun run = SharedRun(dir, GetParam().fixture, ranks, 50);
    run.spec.mftd.loss_norm = GetParam().loss_norm;
    run.spec.lora.dropout = GetParam().dropout;
    run.Start();
    for (const Ended& ended : run.WaitAll()) {
      ASSERT_EQ(ended.exit_code, 0) << ended.log;
    }
    const auto steps = run.Records<StepRecord>();
    if (ranks == 1) {
      losses = Losses(run);
      evals = run.Records<EvalRecord>();
      expert_share = steps.back().expert_share;
      for (const StepRecord& step : steps) {
        norms.push_back(step.grad_norm);
      }
      continue;
    }
    ExpectSameLosses(Losses(run), losses);
    for (size_t i = 0; i < norms.size(); ++i) {
      EXPECT_NEAR(steps[i].grad_norm / norms[i], 1, 1e-3) << "step " << i + 1;
    }
    ASSERT_EQ(run.Records<EvalRecord>().size(), evals.size());
    for (size_t i = 0; i < evals.size(); ++i) {
      EXPECT_EQ(run.Records<EvalRecord>()[i].loss_tokens, evals[i].loss_tokens);
      EXPECT_NEAR(run.Records<EvalRecord>()[i].eval_loss / evals[i].eval_loss, 1, 1e-5);
    }
    ASSERT_EQ(steps.back().expert_share.size(), expert_share.size());
    for (size_t e = 0; e < expert_share.size(); ++e) {
      EXPECT_NEAR(steps.back().expert_share[e], expert_share[e], 0.01) << e;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Jobs,
                         OnAnyNumberOfRanks,
                         ::testing::Values(SharedCase{"Dense", "dense-headdim", "token", 0},
                                           SharedCase{"Means", "dense-headdim", "reference", 0},
                                           SharedCase{"Dropout", "dense", "token", 0.2},
                                           SharedCase{"Experts", "moe", "token", 0.1},
                                           SharedCase{"EveryWeight", "full", "token", 0}),
                         [](const auto& tested) { return tested.param.name; });

// A mean of means asks for the same packs in a microbatch, whoever has it.
TEST(Ranks, MicrobatchesOfSeveralPacksStayTogetherForAMeanOfMeans) {
  TempDir dir;
  std::vector<double> losses;
  for (const int ranks : {1, 2}) {
    TrainRun run = SharedRun(dir, "dense-headdim", ranks, 10, 4);
    run.spec.mftd.loss_norm = "reference";
    run.spec.batch_size = 2;
    run.spec.num_microbatches = 2 / ranks;
    ASSERT_EQ(run.Run().exit_code, 0);
    if (ranks == 1) {
      losses = Losses(run);
    } else {
      ExpectSameLosses(Losses(run), losses);
    }
  }
}

std::function<bool(const Record&)> StepAtLeast(int64_t step) {
  return [step](const Record& record) {
    const auto* body = std::get_if<StepRecord>(&record.body);
    return body != nullptr && body->step >= step;
  };
}

FinalRecord FinalOf(const TrainRun& run, int rank) {
  for (const Record& record : run.Journal(rank)) {
    if (const auto* final = std::get_if<FinalRecord>(&record.body)) {
      return *final;
    }
  }
  return {};
}

TEST(Ranks, OneRanksRequestIsEverybodys) {
  TempDir dir;
  TrainRun run = SharedRun(dir, "dense-headdim", 2, 100'000);
  run.spec.num_ckpt_keep = 0;
  run.spec.eval_freq = 0;
  run.spec.no_eval = true;
  run.Start();
  ASSERT_TRUE(run.WaitFor(StepAtLeast(5)));
  run.Signal(SIGUSR1, 1);
  ASSERT_TRUE(run.WaitFor(
      [](const Record& record) { return std::holds_alternative<CheckpointRecord>(record.body); }));
  run.Signal(SIGTERM, 1);
  const std::vector<Ended> ended = run.WaitAll();
  EXPECT_EQ(FinalOf(run, 0).outcome, "stopped") << ended[0].log;
  EXPECT_EQ(FinalOf(run, 1).outcome, "stopped") << ended[1].log;
  EXPECT_EQ(FinalOf(run, 0).step, FinalOf(run, 1).step);
  EXPECT_EQ(ListCheckpointSteps(run.spec.run_dir).size(), 2U);
  EXPECT_EQ(ListCheckpointSteps(run.spec.run_dir).back(), FinalOf(run, 0).step);
}

TEST(Ranks, OnlyTheFirstWritesStepsAndFiles) {
  TempDir dir;
  TrainRun run = SharedRun(dir, "dense-headdim", 2, 5);
  run.Start();
  for (const Ended& ended : run.WaitAll()) {
    ASSERT_EQ(ended.exit_code, 0) << ended.log;
    EXPECT_THAT(ended.log, HasSubstr("step: 000005"));
  }
  EXPECT_EQ(run.Records<StepRecord>().size(), 5U);
  for (const Record& record : run.Journal(1)) {
    const bool own = std::holds_alternative<HeaderRecord>(record.body) ||
                     std::holds_alternative<PhaseRecord>(record.body) ||
                     std::holds_alternative<FinalRecord>(record.body);
    EXPECT_TRUE(own) << RecordTypeName(record.body);
  }
}

TEST(Ranks, AllEndAlikeWhenTheLossIsNotFinite) {
  TempDir dir;
  for (const char* policy : {"fail", "pause"}) {
    TrainRun run(StrCat(dir.path(), "/", policy), "dense");
    run.ranks = 2;
    run.spec.optim.lr = 1e37;
    run.spec.optim.pct_start = 0;
    run.spec.mftd.nonfinite = policy;
    run.spec.ckpt_freq = 1;
    const std::string log = run.Run().log;
    for (int rank = 0; rank < 2; ++rank) {
      EXPECT_EQ(FinalOf(run, rank).outcome, policy == std::string("fail") ? "failed" : "stopped")
          << log;
      EXPECT_EQ(FinalOf(run, rank).reason, "NONFINITE_LOSS") << log;
      EXPECT_EQ(FinalOf(run, rank).step, 1) << log;
    }
    EXPECT_EQ(ListCheckpointSteps(run.spec.run_dir), std::vector<int64_t>{1});
  }
}

TEST(Ranks, TrainSeveralSeedsStopEarlyAndExportTheBest) {
  TempDir dir;
  TrainRun run = SharedRun(dir, "moe", 2, 40);
  run.spec.mftd.seeds = {5, 11};
  run.spec.mftd.init_adapter.clear();
  run.spec.mftd.keep_best = true;
  run.spec.mftd.early_stop = {.patience = 1,
                              .min_delta = 100};  // the second never improves so much
  run.spec.eval_freq = 4;
  run.spec.mftd.export_formats = {"mistral", "peft"};
  run.Start();
  for (const Ended& ended : run.WaitAll()) {
    ASSERT_EQ(ended.exit_code, 0) << ended.log;
  }
  EXPECT_EQ(FinalOf(run, 0).message, FinalOf(run, 1).message);
  EXPECT_THAT(FinalOf(run, 1).message, HasSubstr("the best of 2 seeds is "));
  EXPECT_EQ(run.Records<StepRecord>().size(), 16U);  // two evaluations each
  EXPECT_TRUE(PathExists(run.RunFile("seeds.json")));
  EXPECT_TRUE(PathExists(run.RunFile("exports")));
}

// What the number of ranks changes is the order of a sum.
TEST(Ranks, ARunGoesOnOnAnotherNumberOfRanks) {
  TempDir dir;
  TrainRun undisturbed = SharedRun(dir, "dense-headdim", 1, 40);
  undisturbed.spec.num_ckpt_keep = 0;
  ASSERT_EQ(undisturbed.Run().exit_code, 0);
  const std::vector<double> expected = Losses(undisturbed);

  TrainRun run = SharedRun(dir, "dense-headdim", 2, 40);
  std::vector<double> actual;
  int64_t begin = 0;
  for (const int ranks : {2, 4, 1, 4}) {
    run.ranks = ranks;
    run.spec.mftd.ranks = ranks;
    run.Start();
    const int64_t stop_at = begin + 8;
    if (ranks == 4 && begin > 20) {
      EXPECT_EQ(run.Wait().exit_code, 0);
    } else {
      ASSERT_TRUE(run.WaitFor(StepAtLeast(stop_at)));
      run.Signal(SIGTERM, ranks - 1);
      const std::string log = run.Wait().log;
      ASSERT_EQ(FinalOf(run, 0).outcome, "stopped") << log;
      EXPECT_EQ(log.find("instead of 2") != std::string::npos, ranks != 2) << log;
    }
    begin = FinalOf(run, 0).step;
    for (const double loss : Losses(run)) {
      actual.push_back(loss);
    }
  }
  ExpectSameLosses(actual, expected);
}

TEST(Ranks, ANumberThatCannotShareTheStepsIsRefusedWithThoseThatCan) {
  TempDir dir;
  TrainRun run = SharedRun(dir, "dense-headdim", 2, 2);
  ASSERT_EQ(run.Run().exit_code, 0);
  run.spec.max_steps = 4;
  run.ranks = 3;
  run.Start();
  for (const Ended& ended : run.WaitAll()) {
    EXPECT_EQ(ended.exit_code, ExitCodeFor(Code::kFailedPrecondition));
    EXPECT_THAT(ended.log, HasSubstr("a step has 4 packs"));
    EXPECT_THAT(ended.log, HasSubstr("can be shared by 1, 2, 4 ranks"));
  }
}

TEST(Ranks, PackingReferenceGoesOnWithItsOwnNumberOnly) {
  TempDir dir;
  TrainRun run = SharedRun(dir, "dense-headdim", 2, 2);
  run.spec.mftd.packing = "reference";
  ASSERT_EQ(run.Run().exit_code, 0);
  run.spec.max_steps = 4;
  run.ranks = 1;
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, ExitCodeFor(Code::kFailedPrecondition));
  EXPECT_THAT(ended.log, HasSubstr("it goes on with 2"));
}

TEST(Ranks, AnotherRunIsGoneOnWithOnAnotherNumber) {
  TempDir dir;
  TrainRun first = SharedRun(dir, "dense-headdim", 4, 10);
  ASSERT_EQ(first.Run().exit_code, 0);
  TrainRun undisturbed = SharedRun(dir, "dense-headdim", 2, 20);
  ASSERT_EQ(undisturbed.Run().exit_code, 0);

  TrainRun second = SharedRun(dir, "dense-headdim", 1, 20);
  second.spec.mftd.resume_from = first.Checkpoint(10);
  second.spec.mftd.init_adapter.clear();
  const Ended ended = second.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  EXPECT_EQ(second.Records<ResumeRecord>().at(0).from_step, 10);
  std::vector<double> expected = Losses(undisturbed);
  expected.erase(expected.begin(), expected.begin() + 10);
  // The schedule of the first ten steps was that of a shorter run.
  EXPECT_EQ(Losses(second).size(), expected.size());
  EXPECT_EQ(second.Records<StepRecord>()[0].loss_tokens,
            undisturbed.Records<StepRecord>()[10].loss_tokens);
}

TEST(Ranks, AWrongNumberIsRefused) {
  TempDir dir;
  TrainRun run = SharedRun(dir, "dense-headdim", 1, 2);
  run.environment["WORLD_SIZE"] = "2";
  const Ended ended = run.Run();
  EXPECT_EQ(ended.exit_code, ExitCodeFor(Code::kInvalidArgument));
  EXPECT_THAT(ended.log, HasSubstr("the job has 1 rank (mftd.ranks), and WORLD_SIZE says that 2"));
}

// Kills a rank somewhere in `run` and goes on with another attempt: the losses of both, each step
// once.
std::vector<double> LossesAroundAKill(TrainRun& run, uint32_t seed) {
  std::mt19937 random(seed);
  const int victim = static_cast<int>(random() % 2);
  const int survivor = 1 - victim;
  run.Start();
  EXPECT_TRUE(run.WaitFor(StepAtLeast(1 + static_cast<int64_t>(random() % 50))));
  std::this_thread::sleep_for(std::chrono::microseconds(random() % 5000));
  run.Signal(SIGKILL, victim);
  const Ended ended = run.WaitAll()[static_cast<size_t>(survivor)];
  const FinalRecord last = FinalOf(run, survivor);
  if (last.outcome != "done") {  // else the kill came too late to be noticed
    EXPECT_EQ(last.reason, "RANK_LOST") << ended.log;
    EXPECT_THAT(last.message, HasSubstr(StrCat("rank ", victim, " is gone; it was at step ")));
    EXPECT_EQ(ended.exit_code, ExitCodeFor(Code::kUnavailable));
  }
  std::vector<double> losses = Losses(run);
  const Ended again = run.Run();
  EXPECT_EQ(again.exit_code, 0) << again.log;
  const auto from = static_cast<size_t>(run.Records<ResumeRecord>().at(0).from_step);
  EXPECT_EQ(from % static_cast<size_t>(run.spec.ckpt_freq), 0U);
  EXPECT_LE(from, losses.size());
  losses.resize(from);
  for (const double loss : Losses(run)) {
    losses.push_back(loss);
  }
  return losses;
}

// Where in its life a rank is lost is a matter of chance; what the others say of it is not.
TEST(Ranks, AKillOfAnyOfThemLeavesTheLossesOfAnUndisturbedRun) {
  TempDir dir;
  TrainRun undisturbed = SharedRun(dir, "dense-headdim", 2, 60);
  ASSERT_EQ(undisturbed.Run().exit_code, 0);
  const std::vector<double> expected = Losses(undisturbed);
  for (uint32_t i = 0; i < 20; ++i) {
    SCOPED_TRACE(i);
    TrainRun run(StrCat(dir.path(), "/killed-", i), "dense-headdim");
    run.ranks = 2;
    const std::string run_dir = run.spec.run_dir;
    run.spec = undisturbed.spec;
    run.spec.run_dir = run_dir;
    run.spec.ckpt_freq = 7;
    run.spec.num_ckpt_keep = 0;
    ASSERT_EQ(LossesAroundAKill(run, i), expected);
    for (const int64_t step : ListCheckpointSteps(run_dir)) {
      EXPECT_TRUE(VerifyCheckpoint(run.Checkpoint(step)).ok()) << step;
    }
    EXPECT_EQ(ListCheckpointSteps(run_dir).back(), 60);
  }
}

TEST(Ranks, ADamagedNewestCheckpointIsSkippedByAllOfThem) {
  TempDir dir;
  TrainRun undisturbed = SharedRun(dir, "dense-headdim", 2, 30);
  ASSERT_EQ(undisturbed.Run().exit_code, 0);
  TrainRun run(dir.path() + "/damaged", "dense-headdim");
  const std::string run_dir = run.spec.run_dir;
  run.ranks = 2;
  run.spec = undisturbed.spec;
  run.spec.run_dir = run_dir;
  run.spec.ckpt_freq = 5;
  run.spec.num_ckpt_keep = 0;
  run.Start();
  ASSERT_TRUE(run.WaitFor(StepAtLeast(17)));
  run.Signal(SIGKILL, 1);
  run.WaitAll();
  const int64_t newest = ListCheckpointSteps(run_dir).back();
  const std::string file = run.Checkpoint(newest) + "/state/optimizer.safetensors";
  std::string bytes = ReadFile(file).value();
  bytes[bytes.size() / 2] ^= 1;
  ASSERT_TRUE(WriteFileAtomic(file, bytes).ok());
  std::vector<double> losses = Losses(run);
  const Ended again = run.Run();
  ASSERT_EQ(again.exit_code, 0) << again.log;
  EXPECT_THAT(again.log, HasSubstr("a checkpoint did not verify"));
  EXPECT_EQ(run.Records<ResumeRecord>().at(0).from_step, newest - 5);
  losses.resize(static_cast<size_t>(newest - 5));
  for (const double loss : Losses(run)) {
    losses.push_back(loss);
  }
  EXPECT_EQ(losses, Losses(undisturbed));
}

struct Placed {
  const char* said;       // in the log; "": resident
  int64_t allowed_bytes;  // of a rank; 0: all there is
};

// One pack in four has something to learn, and so has the evaluation's one chunk: the passes of two
// ranks are never as many.
void BuildUnevenCache(const std::string& directory) {
  std::vector<testing::TestSample> samples;
  for (int32_t i = 0; i < 24; ++i) {
    testing::TestSample& sample = samples.emplace_back();
    for (int32_t at = 0; at <= 20; ++at) {
      sample.tokens.push_back(1 + (i * 37 + at * 11) % 511);
      sample.mask.push_back(i % 4 == 0 ? 1 : 0);
    }
  }
  testing::BuildCache(
      directory, {{.files = {samples}}, {.kind = SourceKind::kEval, .files = {{samples[0]}}}}, 512);
}

// A base that no rank has the memory for, on two hosts, as it were: each rank has half of it, or
// reads it again and again.
TEST(Ranks, ShardedAndOffloadedWeightsGiveTheBitsOfResidentOnes) {
  TempDir dir;
  const ModelParams params{.dim = 384,
                           .n_layers = 32,
                           .head_dim = 48,
                           .hidden_dim = 1536,
                           .n_heads = 8,
                           .n_kv_heads = 4,
                           .vocab_size = 512};
  testing::WriteTinyModel(dir.File("model"), params);
  BuildUnevenCache(dir.File("tokens"));
  std::vector<std::vector<double>> seen;
  for (const Placed placed : {Placed{"", 0},
                              Placed{"the weights are sharded", int64_t{370} << 20},
                              Placed{"the weights are offloaded", int64_t{260} << 20}}) {
    SCOPED_TRACE(placed.said);
    TrainRun run(StrCat(dir.path(), "/", seen.size()), "dense");
    run.ranks = 2;
    run.environment["LOCAL_WORLD_SIZE"] = "1";
    run.spec.model_id_or_path = dir.File("model");
    run.spec.mftd.init_adapter.clear();
    run.data_cache = dir.File("tokens");
    run.spec.mftd.packing = "whole";
    run.spec.seq_len = 20;
    run.spec.batch_size = 1;
    run.spec.num_microbatches = 2;
    run.spec.max_steps = 3;
    run.spec.no_eval = false;
    run.spec.eval_freq = 2;
    run.data_limit = placed.allowed_bytes;
    run.Start();
    for (const Ended& ended : run.WaitAll()) {
      ASSERT_EQ(ended.exit_code, 0) << ended.log;
      EXPECT_EQ(ended.log.find("the weights are") != std::string::npos, *placed.said != '\0');
      EXPECT_THAT(ended.log, HasSubstr(placed.said));
    }
    seen.push_back(Losses(run));
    for (const StepRecord& step : run.Records<StepRecord>()) {
      seen.back().push_back(step.grad_norm);
    }
    seen.back().push_back(run.Records<EvalRecord>().back().eval_loss);
  }
  EXPECT_EQ(seen[0].size(), 7U);
  EXPECT_EQ(seen[1], seen[0]);
  EXPECT_EQ(seen[2], seen[0]);
}

std::function<bool(const Record&)> PhaseIs(std::string_view phase) {
  return [phase](const Record& record) {
    const auto* body = std::get_if<PhaseRecord>(&record.body);
    return body != nullptr && body->phase == phase;
  };
}

struct Hang {
  std::string_view phase;
  int victim;
};

// A job of three ranks, one of which is stopped in a phase, and who sees the others end.
struct HungJob {
  Hang hang;
  TrainRun run;
  std::thread watcher = {};
  double seconds = 0;  // until the last of the others has ended

  void Begin() {
    run.Start();
    ASSERT_TRUE(run.WaitFor(PhaseIs(hang.phase)));
    run.Signal(SIGSTOP, hang.victim);
    watcher = std::thread([this, begin = std::chrono::steady_clock::now()] {
      for (int rank = 0; rank < run.ranks; ++rank) {
        siginfo_t info{};
        if (rank != hang.victim) {
          waitid(P_PID, static_cast<id_t>(run.pid(rank)), &info, WEXITED | WNOWAIT);
        }
      }
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      run.Signal(SIGKILL, hang.victim);
    });
  }
};

TEST(Ranks, AHungOneIsNamedByAllOthersWithinTenSeconds) {
  TempDir dir;
  std::vector<std::unique_ptr<HungJob>> jobs;
  for (const Hang hang : {Hang{kPhaseLoading, 0},
                          Hang{kPhaseLoading, 2},
                          Hang{kPhaseTraining, 0},
                          Hang{kPhaseTraining, 2},
                          Hang{kPhaseEvaluating, 0},
                          Hang{kPhaseEvaluating, 1},
                          Hang{kPhaseSaving, 0},
                          Hang{kPhaseSaving, 2}}) {
    TrainRun run(StrCat(dir.path(), "/", jobs.size()), "dense-headdim");
    run.ranks = 3;
    run.spec.max_steps = 100'000;
    run.spec.no_eval = false;
    run.spec.eval_freq = run.spec.ckpt_freq = 10;
    jobs.push_back(std::make_unique<HungJob>(HungJob{.hang = hang, .run = std::move(run)}));
    ASSERT_NO_FATAL_FAILURE(jobs.back()->Begin());
  }
  for (const std::unique_ptr<HungJob>& job : jobs) {
    job->watcher.join();
    const auto& [phase, victim] = job->hang;
    SCOPED_TRACE(StrCat(phase, ", rank ", victim));
    EXPECT_LT(job->seconds, 10);
    const std::vector<Ended> ended = job->run.WaitAll();
    for (int rank = 0; rank < job->run.ranks; ++rank) {
      if (rank != victim) {
        const Ended& other = ended[static_cast<size_t>(rank)];
        EXPECT_EQ(other.exit_code, ExitCodeFor(Code::kUnavailable)) << other.log;
        EXPECT_THAT(other.log, HasSubstr(StrCat("rank ", victim, " has shown no sign of life")));
        EXPECT_THAT(other.log, HasSubstr("it was at step "));
      }
    }
  }
}

}  // namespace
}  // namespace mft
