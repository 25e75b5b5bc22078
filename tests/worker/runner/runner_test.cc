// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/checkpoint/checkpoint_dir.h"
#include "tests/worker/runner/runner_fixture.h"

namespace mft::runner {
namespace {

using ::testing::HasSubstr;

TEST_F(RunnerTest, IsDoneWhenEveryRankIs) {
  EXPECT_EQ(Run("steps=5", 3), 0);
  const ResultRecord result = Outcome();
  EXPECT_EQ(result.outcome, "done");
  ASSERT_EQ(result.ranks.size(), 3U);
  EXPECT_EQ(result.ranks[2].final->step, 5);
  EXPECT_EQ(result.first_failed, -1);
  EXPECT_TRUE(LockIsFree());
  EXPECT_EQ(ReadFile(attempt_dir_ + "/rank-2.log").value(), "fake worker train, rank 2 of 3\n");
}

TEST_F(RunnerTest, PreparesDataWithOneProcessWhateverTheRanks) {
  attempt_.kind = AttemptKind::kPrepare;
  EXPECT_EQ(Run("", 4), 0);
  EXPECT_EQ(Outcome().outcome, "done");
  EXPECT_EQ(Outcome().ranks.size(), 1U);
  EXPECT_TRUE(JournalHas(0, "data_prepared"));
}

TEST_F(RunnerTest, PassesOnWhatIsWrongWithTheData) {
  attempt_.kind = AttemptKind::kPrepare;
  EXPECT_EQ(Run("prepare_bad_data=1"), 0);
  const ResultRecord result = Outcome();
  EXPECT_EQ(result.outcome, "failed");
  EXPECT_EQ(result.reason, "VALIDATION_FAILED");
  EXPECT_THAT(result.message, HasSubstr("data.jsonl:3"));
}

TEST_F(RunnerTest, ACrashOfOneRankEndsTheOthers) {
  attempt_.grace_ms = 100;
  EXPECT_EQ(Run("steps=1000000,crash_at@1=3,ignore_term=1", 3), 0);
  const ResultRecord result = Outcome();
  EXPECT_EQ(result.outcome, "failed");
  EXPECT_EQ(result.first_failed, 1);
  EXPECT_EQ(result.ranks[1].signal, SIGABRT);
  EXPECT_EQ(result.ranks[0].signal, SIGKILL);
  EXPECT_THAT(result.message, HasSubstr("rank 1 was ended by signal 6"));
}

TEST_F(RunnerTest, AnExitWithoutAFinalRecordIsAFailure) {
  EXPECT_EQ(Run("steps=3,no_final=1"), 0);
  EXPECT_EQ(Outcome().outcome, "failed");
  EXPECT_THAT(Outcome().message, HasSubstr("left no final record"));
}

TEST_F(RunnerTest, ACrashAfterTheWorkIsDoneIsNone) {
  EXPECT_EQ(Run("steps=3,done_exit=1"), 0);
  EXPECT_EQ(Outcome().outcome, "done");
  EXPECT_EQ(Outcome().ranks[0].exit_code, 1);
}

TEST_F(RunnerTest, TellsWhatALogEndsWith) {
  EXPECT_EQ(Run("exit_at=2,exit_code=7"), 0);
  EXPECT_EQ(Outcome().code, static_cast<int>(Code::kResourceExhausted));
  EXPECT_THAT(Outcome().message, HasSubstr("fake worker leaves at step 2"));
}

TEST_F(RunnerTest, AProgramThatCannotBeStartedIsAFailedResult) {
  Write("", 2);
  Start({"--bin-dir", "/nonexistent"});
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "failed");
  EXPECT_EQ(Outcome().reason, "START_FAILED");
  EXPECT_THAT(Outcome().message, HasSubstr("/nonexistent/mft-worker: No such file or directory"));
}

TEST_F(RunnerTest, SigtermMakesTheRanksWriteACheckpointAndStop) {
  Write("steps=1000000", 2);
  Start();
  ASSERT_TRUE(Eventually([&] { return JournalHas(0, "\"step\",\"step\":3,") && Trains(1); }));
  kill(pid_, SIGTERM);
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "stopped");
  ASSERT_EQ(ListCheckpointSteps(run_dir_).size(), 1U);
  EXPECT_EQ(ListCheckpointSteps(run_dir_)[0], Outcome().ranks[0].final->step);
}

TEST_F(RunnerTest, SigusrMakesTheRanksWriteACheckpointAndGoOn) {
  Write("steps=1000000");
  Start();
  ASSERT_TRUE(Eventually([&] { return JournalHas(0, "\"step\",\"step\":3,"); }));
  kill(pid_, SIGUSR1);
  ASSERT_TRUE(Eventually([&] { return ListCheckpointSteps(run_dir_).size() == 1; }));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(ListCheckpointSteps(run_dir_).size(), 2U);
}

TEST_F(RunnerTest, KillsWhatDoesNotStopWithinTheGracePeriod) {
  attempt_.grace_ms = 50;
  Write("hang_at=2,ignore_term=1", 2);
  Start();
  ASSERT_TRUE(Eventually([&] { return Trains(0) && Trains(1); }));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "killed");
  EXPECT_EQ(Outcome().reason, "GRACE_PERIOD_EXCEEDED");
  EXPECT_TRUE(FindAttemptProcesses(attempt_.attempt_id).empty());
}

TEST_F(RunnerTest, KeepsTheTimeLimit) {
  attempt_.time_limit_ms = 100;
  EXPECT_EQ(Run("steps=1000000"), 0);
  EXPECT_EQ(Outcome().outcome, "killed");
  EXPECT_EQ(Outcome().reason, "TIME_LIMIT_EXCEEDED");
  EXPECT_EQ(Outcome().ranks[0].final->outcome, "stopped");
}

TEST_F(RunnerTest, LeavesNoProcessOfTheRanksBehind) {
  Write("steps=1000,orphan=1", 2);
  Start();
  ASSERT_TRUE(Eventually([&] { return FindAttemptProcesses(attempt_.attempt_id).size() >= 5; }));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "stopped");
  EXPECT_TRUE(FindAttemptProcesses(attempt_.attempt_id).empty());
}

TEST_F(RunnerTest, ItsDeathFreesTheLockAndTakesTheRanksWithIt) {
  Write("steps=1000000,ignore_term=1", 2);
  Start();
  ASSERT_TRUE(Eventually([&] { return Trains(0) && Trains(1); }));
  EXPECT_FALSE(LockIsFree());
  kill(pid_, SIGKILL);
  EXPECT_EQ(Wait(), 1000 + SIGKILL);
  EXPECT_TRUE(LockIsFree());
  EXPECT_TRUE(Eventually([&] { return FindAttemptProcesses(attempt_.attempt_id).empty(); }));
  const auto ends = ReadJournalEnds(attempt_dir_ + "/runner.jsonl");
  ASSERT_TRUE(ends.ok() && ends->last);
  EXPECT_FALSE(std::holds_alternative<ResultRecord>(ends->last->body));
}

TEST_F(RunnerTest, RanksGetNoLockAndDieFirstWhenMemoryRunsOut) {
  Write("steps=1000000");
  Start();
  ASSERT_TRUE(Eventually([&] { return Trains(0); }));
  for (const AttemptProcess& process : FindAttemptProcesses(attempt_.attempt_id)) {
    const std::string proc = StrCat("/proc/", process.pid);
    const bool is_runner = process.pid == pid_;
    int locks = 0;
    for (const auto& entry : std::filesystem::directory_iterator(proc + "/fd")) {
      locks += std::filesystem::read_symlink(entry).filename() == "lock" ? 1 : 0;
    }
    EXPECT_EQ(locks, is_runner ? 1 : 0);
    EXPECT_EQ(Trim(ReadFile(proc + "/oom_score_adj").value()), is_runner ? "0" : "500");
    EXPECT_EQ(getsid(process.pid), pid_);
  }
}

TEST_F(RunnerTest, ARankThatSomebodyKilledIsAFailure) {
  EXPECT_EQ(Run("kill_at=2"), 0);
  EXPECT_EQ(Outcome().outcome, "failed");
  EXPECT_THAT(Outcome().message, HasSubstr("SIGKILL that the runner did not send"));
}

TEST_F(RunnerTest, RefusesRanksOfAnotherBuild) {
  EXPECT_EQ(Run("steps=3,build=9.9"), 0);
  EXPECT_EQ(Outcome().outcome, "failed");
  EXPECT_EQ(Outcome().reason, "BUILD_MISMATCH");
  EXPECT_THAT(Outcome().message, HasSubstr("9.9"));
}

TEST_F(RunnerTest, ReadsTheFinalRecordBehindAFloodOfOthers) {
  EXPECT_EQ(Run("steps=3,flood=500"), 0);
  EXPECT_EQ(Outcome().outcome, "done");
}

TEST_F(RunnerTest, AnAttemptFileOfAnotherReleaseIsAFailedResult) {
  Write("");
  dir_.Write("job/attempts/0001/attempt.json", R"({"version":99})");
  Start();
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "failed");
  EXPECT_THAT(Outcome().message, HasSubstr("version 99"));
  EXPECT_EQ(ReadJournalEnds(attempt_dir_ + "/runner.jsonl")->header->attempt_id,
            attempt_.attempt_id);
}

TEST_F(RunnerTest, RunsAnAttemptOnlyOnce) {
  EXPECT_EQ(Run("steps=2"), 0);
  Start();
  EXPECT_EQ(Wait(), ExitCodeFor(Code::kFailedPrecondition));
  EXPECT_EQ(Outcome().outcome, "done");
}

TEST_F(RunnerTest, RefusesADescriptorThatIsNotTheLock) {
  Write("steps=2");
  Start({"--lock-fd", "99"});
  EXPECT_EQ(Wait(), ExitCodeFor(Code::kInternal));
  EXPECT_FALSE(PathExists(attempt_dir_ + "/runner.jsonl"));
}

}  // namespace
}  // namespace mft::runner
