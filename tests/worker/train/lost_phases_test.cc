// SPDX-License-Identifier: Apache-2.0
// A rank that is killed, or stands still, in each phase of its life: all others end within ten
// seconds and say which rank it was, at which step, doing what. A debugger takes it there, so that
// where it is lost is no matter of chance.
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <functional>
#include <memory>
#include <ostream>
#include <semaphore>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/support/debugger.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/worker/train/train_run.h"

namespace mft {
namespace {

using testing::Breakpoint;
using testing::Ended;
using ::testing::HasSubstr;
using testing::TempDir;
using testing::TrainRun;

constexpr std::chrono::seconds kContract(10);  // until all others have ended
constexpr std::chrono::seconds kPatience(30);
// A rank tells every half second where it is.
constexpr std::chrono::milliseconds kUntilItHasToldWhere(1'200);
// All jobs, which mostly wait for a sign of life; one at a time is on its way to a phase, since
// that computes.
constexpr int kAlive = 10;

constexpr const char* kDone = "";  // of a phase after which no rank needs another

using Way = std::vector<Breakpoint>;
struct Phase {
  const char* name;
  const char* place;  // "3, training", as the others say, or kDone
  Way of_first;
  Way of_other;
};
Phase OfAll(const char* name, const char* place, const Way& way) {
  return {name, place, way, way};
}

struct Group {
  const char* name;
  std::function<void(const TempDir&)> prepare;
  std::function<TrainRun(const TempDir&, const std::string& name)> job;
  std::vector<Phase> phases;
};

void PrintTo(const Group& group, std::ostream* out) {
  *out << group.name;
}

// Of three ranks: four steps, an evaluation and a checkpoint after each second one, an export.
TrainRun SmallJob(const TempDir& dir, const std::string& name) {
  TrainRun run(dir.File(name), "dense-headdim");
  run.ranks = 3;
  run.spec.mftd.packing = "whole";
  run.spec.batch_size = 1;
  run.spec.num_microbatches = 1;
  run.spec.max_steps = 4;
  run.spec.ckpt_freq = run.spec.eval_freq = 2;
  run.spec.no_eval = false;
  run.spec.mftd.export_formats = {"peft"};
  return run;
}

constexpr const char* kAgreeInMemory = "mft::(anonymous namespace)::SharedMemoryTransport::Agree(";
constexpr const char* kSumInMemory =
    "mft::(anonymous namespace)::SharedMemoryTransport::Sum(std::span<float";
constexpr const char* kSpreadInMemory =
    "mft::(anonymous namespace)::SharedMemoryTransport::Spread(";
constexpr const char* kAgreeByTcp = "mft::(anonymous namespace)::TcpTransport::Agree(";
constexpr const char* kSumByTcp = "mft::(anonymous namespace)::TcpTransport::Sum(std::span<float";
constexpr const char* kSpreadByTcp = "mft::(anonymous namespace)::TcpTransport::Spread(";
constexpr const char* kFetch = "mft::(anonymous namespace)::PackBatcher::Step(";
constexpr const char* kPass = "mft::Transformer::AddForwardBackward(";
constexpr const char* kEvaluate = "mft::Transformer::Loss(";

Group Meeting() {
  return {.name = "Meeting",
          .prepare = {},
          .job = SmallJob,
          .phases = {
              {"BetweenTheConnections",
               "0, starting",
               {{"mft::AcceptRank(", 2}},
               {{"mft::ConnectToRank(", 2}}},
              OfAll("BeforeTheMemoryIsShared", "0, starting", {{"mft::ShareMemory("}}),
              {"WhileTheMemoryIsShared",
               "0, starting",
               {{"mft::ShareMemory("}, {"mft::ReceiveAllWithin("}},
               {{"mft::ShareMemory("}, {"mft::ReceiveAllWithin(", 2}}},
              OfAll("Starting", "0, starting", {{"mft::RunJob("}}),
          }};
}

Group Opening() {
  return {.name = "Opening",
          .prepare = {},
          .job = SmallJob,
          .phases = {
              OfAll("ReadingTheModel", "0, loading", {{"mft::ModelWeights::Fingerprint"}}),
              OfAll("LoadingTheWeights", "0, loading", {{"mft::MakeResidentWeights("}}),
              OfAll("MakingTheModel", "0, loading", {{"mft::Transformer::Transformer("}}),
          }};
}

// Goes on from a checkpoint of another run.
Group Restoring() {
  return {.name = "Restoring",
          .prepare =
              [](const TempDir& dir) {
                TrainRun first = SmallJob(dir, "first");
                first.spec.max_steps = 2;
                const Ended ended = first.Run();
                ASSERT_EQ(ended.exit_code, 0) << ended.log;
              },
          .job =
              [](const TempDir& dir, const std::string& name) {
                TrainRun run = SmallJob(dir, name);
                run.spec.mftd.resume_from = SmallJob(dir, "first").Checkpoint(2);
                run.spec.mftd.init_adapter.clear();
                return run;
              },
          .phases =
              {
                  {"Restoring",
                   "0, resuming",
                   {{"mft::ReadOptimizerState("}},
                   {{"mft::Ranks::FromFirst("}}},
              }};
}

Group Step() {
  return {.name = "Step",
          .prepare = {},
          .job = SmallJob,
          .phases = {
              OfAll("AgreeingOnRequests", "2, training", {{"mft::Ranks::Any(", 3}}),
              OfAll("WaitingForData", "3, training", {{kFetch, 3}}),
              OfAll("Forward", "3, training", {{kPass, 3}, {"mft::BlockForward("}}),
              OfAll("Loss", "3, training", {{kPass, 3}, {"mft::HeadLossBackward("}}),
              OfAll("Backward", "3, training", {{kPass, 3}, {"mft::BlockBackward("}}),
              OfAll("BeforeTheSum", "3, summing gradients", {{"mft::Ranks::SumGradient(", 3}}),
              OfAll("InTheSum", "3, summing gradients", {{kSumInMemory, 3}}),
              OfAll("Clipping", "3, updating weights", {{"mft::GradNorm(", 3}}),
              OfAll("Updating", "3, updating weights", {{"mft::UpdateWeights(", 3}}),
          }};
}

Group Boundary() {
  return {.name = "Boundary",
          .prepare = {},
          .job = SmallJob,
          .phases = {
              OfAll("Evaluating", "2, evaluating", {{kEvaluate}}),
              OfAll("SummingTheEvaluation", "2, evaluating", {{kEvaluate}, {kAgreeInMemory}}),
              {"Saving",
               "2, saving",
               {{"mft::WriteCheckpointFiles("}},
               {{"mft::Trainer::SaveCheckpoint("}, {kAgreeInMemory}}},
              {"Exporting",
               "4, saving",
               {{"mft::ExportResult("}},
               {{"mft::Trainer::Complete("}, {kAgreeInMemory}}},
              OfAll("Ending", kDone, {{"mft::Reporter::Final("}}),
          }};
}

Group ByTcp() {
  return {.name = "ByTcp",
          .prepare = {},
          .job =
              [](const TempDir& dir, const std::string& name) {
                TrainRun run = SmallJob(dir, name);
                run.environment["MFT_RANK_TRANSPORT"] = "tcp";
                return run;
              },
          .phases = {
              OfAll("BeforeTheSum", "3, summing gradients", {{"mft::Ranks::SumGradient(", 3}}),
              OfAll("InTheSum", "3, summing gradients", {{kSumByTcp, 3}}),
              {"Saving",
               "2, saving",
               {{"mft::WriteCheckpointFiles("}},
               {{"mft::Trainer::SaveCheckpoint("}, {kAgreeByTcp}}},
          }};
}

// A base that no rank has the memory for, on two hosts, as it were: the blocks are gathered by a
// thread in the background, a block ahead.
TrainRun ShardedJob(const TempDir& dir, const std::string& name) {
  TrainRun run = SmallJob(dir, name);
  run.ranks = 2;
  run.environment["LOCAL_WORLD_SIZE"] = "1";
  run.spec.model_id_or_path = dir.File("model");
  run.spec.mftd.init_adapter.clear();
  run.spec.no_eval = true;
  run.data_limit = int64_t{370} << 20;
  return run;
}

TrainRun ShardedJobByTcp(const TempDir& dir, const std::string& name) {
  TrainRun run = ShardedJob(dir, name);
  run.environment["MFT_RANK_TRANSPORT"] = "tcp";
  return run;
}

void MakeLargeModel(const TempDir& dir) {
  testing::WriteTinyModel(dir.File("model"),
                          {.dim = 384,
                           .n_layers = 32,
                           .head_dim = 48,
                           .hidden_dim = 1536,
                           .n_heads = 8,
                           .n_kv_heads = 4,
                           .vocab_size = 512});
}

Group Sharded() {
  return {.name = "Sharded",
          .prepare = MakeLargeModel,
          .job = ShardedJob,
          .phases = {
              OfAll("ReadingItsPart", "2, training", {{kFetch, 2}, {"mft::BlockImages::Write("}}),
              OfAll("Gathering", "2, training", {{kFetch, 2}, {kSpreadInMemory}}),
              OfAll("WaitingForABlock", "2, training", {{kFetch, 2}, {"mft::BlockBuffers::Get("}}),
          }};
}

Group ShardedByTcp() {
  return {.name = "ShardedByTcp",
          .prepare = MakeLargeModel,
          .job = ShardedJobByTcp,
          .phases = {OfAll("Gathering", "2, training", {{kFetch, 2}, {kSpreadByTcp}})}};
}

// A job that loses a rank in a phase, and who sees the others end.
class LosingJob {
 public:
  LosingJob(const Phase& phase, int victim, int signal, TrainRun run)
      : phase_(phase), victim_(victim), signal_(signal), run_(std::move(run)) {}

  std::string Describe() const {
    return StrCat(phase_.name, ", rank ", victim_, signal_ == SIGKILL ? " killed" : " stopped");
  }

  // Returns when the victim has come to the phase, or does not. `over` is called when all have
  // ended.
  void Start(std::function<void()> over) {
    run_.held = victim_;
    run_.Start();
    thread_ = std::thread([this, over = std::move(over)] {
      const auto when = testing::SignalAt(
          run_.pid(victim_),
          MFT_BIN_DIR "/mft-worker",
          victim_ == 0 ? phase_.of_first : phase_.of_other,
          [this] { came_.release(); },
          kUntilItHasToldWhere,
          signal_);
      lost_ = when.status();
      if (lost_.ok()) {
        SeeOthersEnd(*when);
      } else {
        came_.release();
      }
      for (int rank = 0; rank < run_.ranks; ++rank) {
        run_.Signal(SIGKILL, rank);
      }
      over();
    });
    came_.acquire();
  }

  void ExpectThatTheOthersEndedAndSayWhy() {
    thread_.join();
    const std::vector<Ended> ended = run_.WaitAll();  // so nothing of it is left
    ASSERT_TRUE(lost_.ok()) << lost_.ToString() << "\n" << ended[static_cast<size_t>(victim_)].log;
    EXPECT_EQ(ended[static_cast<size_t>(victim_)].signal, SIGKILL);
    EXPECT_LT(seconds_, std::chrono::duration<double>(kContract).count());
    for (int rank = 0; rank < run_.ranks; ++rank) {
      if (rank != victim_) {
        SCOPED_TRACE(StrCat("rank ", rank));
        ExpectEnd(rank, ended[static_cast<size_t>(rank)]);
      }
    }
  }

 private:
  void SeeOthersEnd(std::chrono::steady_clock::time_point lost) {
    for (int rank = 0; rank < run_.ranks; ++rank) {
      siginfo_t info{};
      while (rank != victim_ && info.si_pid == 0 &&
             std::chrono::steady_clock::now() < lost + kPatience) {
        waitid(P_PID, static_cast<id_t>(run_.pid(rank)), &info, WEXITED | WNOWAIT | WNOHANG);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - lost).count();
  }

  void ExpectEnd(int rank, const Ended& ended) const {
    if (phase_.place == kDone) {
      EXPECT_EQ(ended.exit_code, 0) << ended.log;
      return;
    }
    EXPECT_EQ(ended.exit_code, ExitCodeFor(Code::kUnavailable)) << ended.log;
    EXPECT_THAT(
        ended.log,
        HasSubstr(StrCat("rank ",
                         victim_,
                         signal_ == SIGKILL ? " is gone" : " has shown no sign of life for 7.0 s",
                         "; it was at step ",
                         phase_.place)));
    for (const Record& record : run_.Journal(rank)) {
      if (const auto* last = std::get_if<FinalRecord>(&record.body)) {
        EXPECT_EQ(last->reason, kReasonRankLost) << ended.log;
      }
    }
  }

  const Phase& phase_;
  const int victim_;
  const int signal_;
  TrainRun run_;
  std::thread thread_;
  std::counting_semaphore<> came_{0};
  Status lost_;         // whether the victim is
  double seconds_ = 0;  // until the last of the others had ended
};

class LostPhases : public ::testing::TestWithParam<Group> {};

TEST_P(LostPhases, EndAllOthersWithinTenSecondsAndAreNamed) {
  if (const std::string why = testing::WhyNoDebugger(); !why.empty()) {
    GTEST_SKIP() << "no debugger: " << why;
  }
  const Group& group = GetParam();
  const TempDir dir;
  if (group.prepare) {
    ASSERT_NO_FATAL_FAILURE(group.prepare(dir));
  }
  std::counting_semaphore<> alive(kAlive);
  std::vector<std::unique_ptr<LosingJob>> jobs;
  for (const Phase& phase : group.phases) {
    for (const bool first : {true, false}) {
      for (const int signal : {SIGKILL, SIGSTOP}) {
        TrainRun run = group.job(dir, StrCat("job-", jobs.size()));
        const int victim = first ? 0 : run.ranks - 1;
        jobs.push_back(std::make_unique<LosingJob>(phase, victim, signal, std::move(run)));
        alive.acquire();
        jobs.back()->Start([&] { alive.release(); });
      }
    }
  }
  for (const std::unique_ptr<LosingJob>& job : jobs) {
    SCOPED_TRACE(job->Describe());
    job->ExpectThatTheOthersEndedAndSayWhy();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Of,
    LostPhases,
    ::testing::Values(
        Meeting(), Opening(), Restoring(), Step(), Boundary(), ByTcp(), Sharded(), ShardedByTcp()),
    [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace mft
