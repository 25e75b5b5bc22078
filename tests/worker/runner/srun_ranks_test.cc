// SPDX-License-Identifier: Apache-2.0
// Ranks that srun starts, played by fake_srun over the real mft-runner, as runner and as keepers.
#include "worker/runner/srun_ranks.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/checkpoint/checkpoint_dir.h"
#include "tests/worker/runner/runner_fixture.h"
#include "worker/runner/rank_words.h"

namespace mft::runner {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(SrunArguments, AreOneStepOfAllRanks) {
  const AttemptFile attempt{
      .ranks = 7, .threads = 3, .ranks_per_node = 4, .srun = "/opt/slurm/bin/srun"};
  EXPECT_THAT(SrunArguments(attempt, "/state/a", "/opt/mft"),
              ElementsAre("/opt/slurm/bin/srun",
                          "--nodes=2",
                          "--ntasks=7",
                          "--ntasks-per-node=4",
                          "--cpus-per-task=3",
                          "--distribution=block",
                          "--export=ALL",
                          "--mpi=none",
                          "--input=all",
                          "--output=all",
                          "--error=all",
                          "--kill-on-bad-exit=0",
                          "--wait=0",
                          "/opt/mft/mft-runner",
                          "rank",
                          "--attempt-dir",
                          "/state/a",
                          "--bin-dir",
                          "/opt/mft"));
}

TEST(SrunArguments, WithoutAFolderSrunIsLookedForInPath) {
  const AttemptFile attempt{.ranks = 2, .ranks_per_node = 1};
  const std::vector<std::string> words = SrunArguments(attempt, "/a", "/b");
  EXPECT_EQ(words[0], "/usr/bin/env");
  EXPECT_EQ(words[1], "srun");
}

TEST(SrunVariables, LeaveItToSrunWhichRankIsWhich) {
  const auto variables = SrunVariables({.attempt_id = "17", .ranks = 2, .ranks_per_node = 1});
  EXPECT_THAT(variables, Contains(Pair("MFT_ATTEMPT", "17")));
  for (const char* name : {"WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
    EXPECT_THAT(variables, Contains(Pair(name, ""))) << "of whoever started the daemon";
  }
}

TEST(RankWords, ComeBackAsTheyWere) {
  const RankEnd end{.rank = 3,
                    .exit_code = -1,
                    .signal = 9,
                    .why = Status(Code::kNotFound, "START_FAILED", "starting /x: \"no\"\nfile")};
  const auto again = DecodeRankEnd("3: " + EncodeRankEnd(end));
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->rank, 3);
  EXPECT_EQ(again->exit_code, -1);
  EXPECT_EQ(again->signal, 9);
  EXPECT_EQ(again->why.reason(), "START_FAILED");
  EXPECT_EQ(again->why.message(), end.why.message());
  EXPECT_TRUE(DecodeRankEnd(EncodeRankEnd({.rank = 0, .exit_code = 0}))->why.ok());
}

TEST(RankWords, OtherLinesAreNone) {
  for (const char* line : {"",
                           "hello",
                           "{}",
                           "{\"mft_rank\":",
                           "{\"mft_rank\":1}",
                           "{\"mft_rank\":-1,\"exit_code\":0,\"signal\":0}",
                           "{\"mft_rank\":1,\"exit_code\":\"0\",\"signal\":0}",
                           "{\"mft_rank\":1,\"exit_code\":0,\"signal\":99999999999}"}) {
    EXPECT_FALSE(DecodeRankEnd(line).has_value()) << line;
  }
}

class SrunTest : public RunnerTest {
 protected:
  SrunTest() {
    attempt_.ranks_per_node = 2;
    attempt_.srun = MFT_FAKE_SRUN;
  }

  // -1: there is none.
  pid_t KeeperOf(int rank) {
    for (const AttemptProcess& process : FindAttemptProcesses(attempt_.attempt_id)) {
      const std::string proc = StrCat("/proc/", process.pid);
      const auto command = ReadFile(proc + "/cmdline");
      const auto environment = ReadFile(proc + "/environ");
      const std::string mark = StrCat("SLURM_PROCID=", rank);
      if (command.ok() && command->find("mft-runner") != std::string::npos && environment.ok() &&
          (*environment + '\0').find(mark + '\0') != std::string::npos) {
        return process.pid;
      }
    }
    return -1;
  }
};

TEST_F(SrunTest, IsDoneWhenEveryRankIs) {
  EXPECT_EQ(Run("steps=5,done_exit@2=3", 3), 0);
  const ResultRecord result = Outcome();
  EXPECT_EQ(result.outcome, "done");
  ASSERT_EQ(result.ranks.size(), 3U);
  EXPECT_EQ(result.ranks[0].exit_code, 0);
  EXPECT_EQ(result.ranks[2].exit_code, 3);
  EXPECT_EQ(result.ranks[2].final->step, 5);
  EXPECT_TRUE(LockIsFree());
  EXPECT_THAT(ReadFile(attempt_dir_ + "/rank-2.log").value(), HasSubstr("train, rank 2 of"));
}

TEST_F(SrunTest, ACrashOfOneRankEndsTheOthers) {
  attempt_.grace_ms = 100;
  EXPECT_EQ(Run("steps=1000000,crash_at@1=3,ignore_term=1", 3), 0);
  const ResultRecord result = Outcome();
  EXPECT_EQ(result.outcome, "failed");
  EXPECT_EQ(result.first_failed, 1);
  EXPECT_EQ(result.ranks[1].signal, SIGABRT);
  EXPECT_EQ(result.ranks[0].signal, SIGKILL);
  EXPECT_THAT(result.message, HasSubstr("rank 1 was ended by signal 6"));
}

TEST_F(SrunTest, SigtermMakesTheRanksWriteACheckpointAndStop) {
  Write("steps=1000000", 2);
  Start();
  ASSERT_TRUE(Eventually([&] { return JournalHas(0, "\"step\",\"step\":3,") && Trains(1); }));
  kill(pid_, SIGUSR1);
  ASSERT_TRUE(Eventually([&] { return ListCheckpointSteps(run_dir_).size() == 1; }));
  kill(pid_, SIGTERM);
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "stopped");
  EXPECT_EQ(ListCheckpointSteps(run_dir_).size(), 2U);
}

TEST_F(SrunTest, AStopThatComesBeforeTheRanksIsNotLost) {
  Write("steps=1000000", 2);
  Start();
  ASSERT_TRUE(Eventually([&] { return PathExists(attempt_dir_ + "/runner.jsonl"); }));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "stopped");
}

TEST_F(SrunTest, KillsWhatDoesNotStopWithinTheGracePeriod) {
  attempt_.grace_ms = 50;
  Write("hang_at=2,ignore_term=1,orphan=1", 2);
  Start();
  ASSERT_TRUE(Eventually([&] { return Trains(0) && Trains(1); }));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().outcome, "killed");
  EXPECT_EQ(Outcome().reason, "GRACE_PERIOD_EXCEEDED");
  EXPECT_TRUE(FindAttemptProcesses(attempt_.attempt_id).empty());
}

TEST_F(SrunTest, WhereNobodyHearsItKillsSrun) {
  environment_["FAKE_SRUN"] = "deaf";
  attempt_.grace_ms = 50;
  Write("steps=1000000", 2);
  Start();
  ASSERT_TRUE(Eventually([&] { return Trains(0) && Trains(1); }));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().reason, "GRACE_PERIOD_EXCEEDED");
  EXPECT_TRUE(Eventually([&] { return FindAttemptProcesses(attempt_.attempt_id).empty(); }));
}

TEST_F(SrunTest, ItsDeathTakesTheRanksWithIt) {
  Write("steps=1000000,ignore_term=1", 2);
  Start();
  ASSERT_TRUE(Eventually([&] { return Trains(0) && Trains(1); }));
  kill(pid_, SIGKILL);
  EXPECT_EQ(Wait(), 1000 + SIGKILL);
  EXPECT_TRUE(LockIsFree());
  EXPECT_TRUE(Eventually([&] { return FindAttemptProcesses(attempt_.attempt_id).empty(); }));
}

TEST_F(SrunTest, ARankWhoseKeeperIsGoneIsLost) {
  Write("steps=1000000", 3);
  Start();
  ASSERT_TRUE(Eventually([&] { return Trains(0) && Trains(1) && Trains(2); }));
  const pid_t keeper = KeeperOf(1);
  ASSERT_GT(keeper, 0);
  kill(keeper, SIGKILL);
  ASSERT_TRUE(Eventually([&] { return KeeperOf(1) < 0; }));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().first_failed, 1);
  EXPECT_EQ(Outcome().reason, "RANK_LOST");
  EXPECT_THAT(Outcome().message,
              HasSubstr("rank 1: nobody saw how it ended; srun ended with exit"));
}

TEST_F(SrunTest, AKeeperLeavesNothingOfItsRankBehind) {
  Write("steps=3,orphan=1", 2);
  const std::string said = dir_.File("said");
  const std::string command = StrCat("MFT_ATTEMPT=",
                                     attempt_.attempt_id,
                                     " SLURM_PROCID=1 exec ",
                                     MFT_FAKE_BIN_DIR,
                                     "/mft-runner rank --attempt-dir ",
                                     attempt_dir_,
                                     " > ",
                                     said);
  FILE* keeper = popen(command.c_str(), "w");  // what it reads does not end before it does
  ASSERT_NE(keeper, nullptr);
  ASSERT_TRUE(Eventually([&] {
    const auto text = ReadFile(said);
    return text.ok() && text->ends_with('\n');
  }));
  EXPECT_TRUE(Eventually([&] { return FindAttemptProcesses(attempt_.attempt_id).empty(); }));
  EXPECT_EQ(pclose(keeper), 0);
  const auto end = DecodeRankEnd(Trim(ReadFile(said).value()));
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->rank, 1);
  EXPECT_EQ(end->exit_code, 0);
}

TEST_F(SrunTest, TellsWhySrunDidNotStartThem) {
  environment_["FAKE_SRUN"] = "refuse";
  EXPECT_EQ(Run("steps=3", 2), 0);
  EXPECT_EQ(Outcome().reason, "START_FAILED");
  EXPECT_THAT(
      Outcome().message,
      HasSubstr("srun ended with exit code 1; it said last: srun: error: Unable to create"));
}

TEST_F(SrunTest, ASrunThatIsNotThereIsNamed) {
  attempt_.srun = "/nonexistent/srun";
  EXPECT_EQ(Run("steps=3", 2), 0);
  EXPECT_EQ(Outcome().reason, "START_FAILED");
  EXPECT_THAT(Outcome().message, HasSubstr("/nonexistent/srun: No such file or directory"));
}

TEST_F(SrunTest, AWorkerThatIsNotOnTheNodeIsNamed) {
  const std::string bin = dir_.File("bin");
  ASSERT_TRUE(MakeDirs(bin).ok());
  std::filesystem::create_symlink(std::string(MFT_FAKE_BIN_DIR) + "/mft-runner",
                                  bin + "/mft-runner");
  Write("steps=3", 2);
  Start({"--bin-dir", bin});
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(Outcome().reason, "START_FAILED");
  EXPECT_THAT(Outcome().message, HasSubstr("bin/mft-worker: No such file or directory"));
}

}  // namespace
}  // namespace mft::runner
