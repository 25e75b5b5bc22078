// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/result.h"

#include <csignal>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mft::runner {
namespace {

using ::testing::HasSubstr;

RankExit Final(int rank, const std::string& outcome, const std::string& reason = "") {
  return {.rank = rank,
          .exit_code = 0,
          .signal = 0,
          .final = FinalRecord{.outcome = outcome, .step = 7, .code = 0, .reason = reason}};
}

AttemptOutcome Of(std::vector<RankExit> ranks) {
  AttemptOutcome outcome;
  outcome.program = "mft-worker";
  outcome.ranks = std::move(ranks);
  outcome.grace_ms = 120'000;
  outcome.time_limit_ms = 3'600'000;
  return outcome;
}

TEST(MakeResult, IsDoneOnlyWhenEveryRankIs) {
  EXPECT_EQ(MakeResult(Of({Final(0, "done"), Final(1, "done")})).outcome, "done");
  EXPECT_EQ(MakeResult(Of({Final(0, "done"), Final(1, "stopped")})).outcome, "stopped");
}

TEST(MakeResult, KeepsTheReasonOfAStop) {
  AttemptOutcome outcome = Of({Final(0, "stopped", "DISK_FULL")});
  outcome.ranks[0].final->message = "no space left for a checkpoint";
  const ResultRecord result = MakeResult(outcome);
  EXPECT_EQ(result.reason, "DISK_FULL");
  EXPECT_EQ(result.message, "no space left for a checkpoint");
}

TEST(MakeResult, AFailedRankSpeaksForItself) {
  AttemptOutcome outcome = Of({Final(0, "stopped"), Final(1, "failed", "NONFINITE_LOSS")});
  outcome.ranks[1].final->code = static_cast<int>(Code::kOutOfRange);
  outcome.ranks[1].final->message = "loss is NaN at step 7";
  outcome.first_failed = 1;
  const ResultRecord result = MakeResult(outcome);
  EXPECT_EQ(result.outcome, "failed");
  EXPECT_EQ(result.first_failed, 1);
  EXPECT_EQ(result.code, static_cast<int>(Code::kOutOfRange));
  EXPECT_EQ(result.reason, "NONFINITE_LOSS");
  EXPECT_EQ(result.message, "rank 1: loss is NaN at step 7");
  EXPECT_EQ(result.ranks.size(), 2U);
}

TEST(MakeResult, AnotherRankSaysWhereTheKilledOneWas) {
  AttemptOutcome outcome =
      Of({Final(0, "failed", "RANK_LOST"), {.rank = 1, .exit_code = -1, .signal = SIGKILL}});
  outcome.ranks[0].final->message = "rank 1 is gone; it was at step 41, training";
  outcome.first_failed = 1;
  const ResultRecord result = MakeResult(outcome);
  EXPECT_EQ(result.reason, "WORKER_FAILED");
  EXPECT_THAT(result.message, HasSubstr("rank 1 was killed"));
  EXPECT_THAT(result.message,
              HasSubstr("rank 0 says: rank 1 is gone; it was at step 41, training"));
}

TEST(MakeResult, AnotherRankSaysWhereOneWasThatNobodySawEnd) {
  AttemptOutcome outcome = Of({Final(0, "failed", "RANK_LOST"), {.rank = 1}});
  outcome.ranks[0].final->message = "rank 1 is gone; it was at step 41, training";
  outcome.first_failed = 1;
  outcome.first_failure = Status(Code::kUnavailable, "RANK_LOST", "nobody saw how it ended");
  const ResultRecord result = MakeResult(outcome);
  EXPECT_EQ(result.reason, "RANK_LOST");
  EXPECT_EQ(result.message,
            "rank 1: nobody saw how it ended; rank 0 says: rank 1 is gone; it was at step 41, "
            "training");
}

TEST(MakeResult, ARankThatLeftWithoutAWordSinceAnotherWasLostSaysSo) {
  AttemptOutcome outcome = Of({{.rank = 0, .exit_code = 8, .signal = 0}, Final(1, "stopped")});
  outcome.first_failed = 0;
  outcome.last_log_line = "rank 1 has shown no sign of life for 7 s; it was at step 3, saving";
  const ResultRecord result = MakeResult(outcome);
  EXPECT_EQ(result.reason, "RANK_LOST");
  EXPECT_EQ(result.code, static_cast<int>(Code::kUnavailable));
  EXPECT_THAT(result.message, HasSubstr("rank 1 has shown no sign of life"));
}

TEST(MakeResult, OneRankAloneHasNobodyToLose) {
  AttemptOutcome outcome = Of({{.rank = 0, .exit_code = 8, .signal = 0}});
  outcome.first_failed = 0;
  EXPECT_EQ(MakeResult(outcome).reason, "WORKER_FAILED");
}

TEST(IsNearerCause, OnlyWhereTheOtherEndedForSomebodyElse) {
  const RankExit lost = Final(0, "failed", "RANK_LOST");
  const RankExit left = {.rank = 1, .exit_code = 8, .signal = 0};
  const RankExit killed = {.rank = 2, .exit_code = -1, .signal = SIGKILL};
  const RankExit failed = Final(3, "failed", "NOT_ENOUGH_MEMORY");
  EXPECT_TRUE(IsNearerCause(killed, lost));
  EXPECT_TRUE(IsNearerCause(failed, left));
  EXPECT_FALSE(IsNearerCause(lost, left));
  EXPECT_FALSE(IsNearerCause(lost, killed));
  EXPECT_FALSE(IsNearerCause(failed, killed));
}

TEST(MakeResult, NamesTheSignalAndTheLastLineOfTheLog) {
  AttemptOutcome outcome = Of({{.rank = 0, .exit_code = -1, .signal = SIGSEGV}});
  outcome.first_failed = 0;
  outcome.last_log_line = "CUDA error";
  const ResultRecord result = MakeResult(outcome);
  EXPECT_EQ(result.reason, "WORKER_FAILED");
  EXPECT_THAT(result.message, HasSubstr("mft-worker was ended by signal 11"));
  EXPECT_THAT(result.message, HasSubstr("CUDA error"));
}

TEST(MakeResult, SuspectsTheKernelOfAKillThatIsNotOurs) {
  AttemptOutcome outcome = Of({{.rank = 0, .exit_code = -1, .signal = SIGKILL}});
  outcome.first_failed = 0;
  EXPECT_THAT(MakeResult(outcome).message, HasSubstr("memory"));
}

TEST(MakeResult, ReadsTheClassFromAnExitCodeWithoutARecord) {
  AttemptOutcome outcome = Of({{.rank = 0, .exit_code = 3, .signal = 0}});
  outcome.first_failed = 0;
  EXPECT_EQ(MakeResult(outcome).code, static_cast<int>(Code::kInvalidArgument));
  outcome.ranks[0].exit_code = 0;
  const ResultRecord silent = MakeResult(outcome);
  EXPECT_EQ(silent.code, static_cast<int>(Code::kInternal));
  EXPECT_THAT(silent.message, HasSubstr("exited with 0 and left no final record"));
}

TEST(MakeResult, AStartThatFailedKeepsItsErrno) {
  AttemptOutcome outcome = Of({{.rank = 0}});
  outcome.first_failed = 0;
  outcome.first_failure = Status(Code::kNotFound, "START_FAILED", "starting /x: No such file");
  const ResultRecord result = MakeResult(outcome);
  EXPECT_EQ(result.reason, "START_FAILED");
  EXPECT_EQ(result.code, static_cast<int>(Code::kNotFound));
  EXPECT_THAT(result.message, HasSubstr("starting /x: No such file"));
}

TEST(MakeResult, TheTimeLimitCountsAlsoWhenTheRanksStoppedInTime) {
  AttemptOutcome outcome = Of({Final(0, "stopped")});
  outcome.cause = StopCause::kTimeLimit;
  const ResultRecord result = MakeResult(outcome);
  EXPECT_EQ(result.outcome, "killed");
  EXPECT_EQ(result.reason, "TIME_LIMIT_EXCEEDED");
  EXPECT_THAT(result.message, HasSubstr("1 h"));
  outcome.ranks[0] = Final(0, "done");
  EXPECT_EQ(MakeResult(outcome).outcome, "done");
}

TEST(MakeResult, SaysWhichRankDidNotStop) {
  AttemptOutcome outcome =
      Of({Final(0, "stopped"), {.rank = 1, .exit_code = -1, .signal = SIGKILL}});
  outcome.cause = StopCause::kRequested;
  outcome.killed = true;
  const ResultRecord result = MakeResult(outcome);
  EXPECT_EQ(result.outcome, "killed");
  EXPECT_EQ(result.reason, "GRACE_PERIOD_EXCEEDED");
  EXPECT_THAT(result.message, HasSubstr("rank 1 had not stopped"));
}

}  // namespace
}  // namespace mft::runner
