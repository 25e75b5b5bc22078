// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/retry.h"

#include <gtest/gtest.h>

namespace mft::server {
namespace {

using enum JobState;
using Kind = AttemptEnd::Kind;

Job MakeJob(JobState state = kRunning,
            int retries = 2,
            int used = 0,
            Intent intent = Intent::kNone) {
  JobFile file;
  file.spec.mftd.retries = retries;
  Job job;
  job.id = "j";
  job.file = std::make_shared<const JobFile>(file);
  job.state = state;
  job.retries_used = used;
  job.intent = intent;
  return job;
}

AttemptEnd WithResult(std::string outcome,
                      Code code = Code::kOk,
                      std::string reason = "",
                      std::string message = "") {
  ResultRecord result;
  result.outcome = std::move(outcome);
  result.code = static_cast<int>(code);
  result.reason = std::move(reason);
  result.message = std::move(message);
  return {.kind = Kind::kResult, .result = result, .detail = ""};
}

TEST(Judge, TrainingThatIsDoneSucceedsWhateverWasRequested) {
  for (const Intent intent : {Intent::kNone, Intent::kPause, Intent::kCancel, Intent::kCancelNow}) {
    const Verdict verdict =
        Judge(MakeJob(kRunning, 2, 0, intent), AttemptKind::kTrain, WithResult("done"));
    EXPECT_EQ(verdict.state, kSucceeded);
    EXPECT_EQ(verdict.reason, reason::kCompleted);
  }
}

TEST(Judge, PreparationThatIsDoneWaitsForDevicesUnlessItWasCancelled) {
  EXPECT_EQ(Judge(MakeJob(kValidating), AttemptKind::kPrepare, WithResult("done")).state,
            kValidated);
  const Job cancelled = MakeJob(kCancelling, 2, 0, Intent::kCancel);
  EXPECT_EQ(Judge(cancelled, AttemptKind::kPrepare, WithResult("done")).state, kCancelled);
  const Job paused = MakeJob(kPausing, 2, 0, Intent::kPause);
  EXPECT_EQ(Judge(paused, AttemptKind::kPrepare, WithResult("done")).state, kPaused);
}

TEST(Judge, ARequestToCancelDecidesOverEveryOtherEnd) {
  const Job job = MakeJob(kCancelling, 2, 0, Intent::kCancelNow);
  for (const Kind kind : {Kind::kLost,
                          Kind::kRebooted,
                          Kind::kNeverStarted,
                          Kind::kInterrupted,
                          Kind::kStartFailed}) {
    EXPECT_EQ(Judge(job, AttemptKind::kTrain, {.kind = kind, .result = {}, .detail = ""}).state,
              kCancelled);
  }
  EXPECT_EQ(Judge(job, AttemptKind::kTrain, WithResult("failed", Code::kInternal)).state,
            kCancelled);
  EXPECT_EQ(Judge(job, AttemptKind::kTrain, WithResult("stopped")).state, kCancelled);
}

TEST(Judge, ATokenCacheThatTheWorkerMissesIsMadeAgain) {
  for (const Code code : {Code::kNotFound, Code::kDataLoss}) {
    const AttemptEnd end = WithResult("failed", code, "DATA_CACHE_GONE", "/cache/k: no such file");
    const Verdict verdict = Judge(MakeJob(kStarting), AttemptKind::kTrain, end);
    EXPECT_EQ(verdict.state, kRecovering);
    EXPECT_EQ(verdict.reason, reason::kDataCacheGone);
    EXPECT_TRUE(verdict.uses_retry);
    EXPECT_EQ(Judge(MakeJob(kStarting, 2, 2), AttemptKind::kTrain, end).state, kFailed);
  }
}

TEST(Judge, BadDataFailsWithoutARetryAndSaysWhy) {
  const Verdict verdict =
      Judge(MakeJob(kValidating),
            AttemptKind::kPrepare,
            WithResult("failed", Code::kInvalidArgument, "", "train.jsonl:3: no messages"));
  EXPECT_EQ(verdict.state, kFailed);
  EXPECT_EQ(verdict.reason, reason::kValidationFailed);
  EXPECT_EQ(verdict.message, "train.jsonl:3: no messages");
}

TEST(Judge, AWorkersCrashUsesRetriesUntilNoneIsLeft) {
  const AttemptEnd end = WithResult("failed", Code::kInternal, "", "rank 1 died of signal 11");
  const Verdict first = Judge(MakeJob(kRunning, 2, 0), AttemptKind::kTrain, end);
  EXPECT_EQ(first.state, kRecovering);
  EXPECT_TRUE(first.uses_retry);
  EXPECT_EQ(first.reason, reason::kWorkerFailed);
  const Verdict last = Judge(MakeJob(kRunning, 2, 2), AttemptKind::kTrain, end);
  EXPECT_EQ(last.state, kFailed);
  EXPECT_FALSE(last.uses_retry);
  EXPECT_EQ(last.message, "rank 1 died of signal 11 (2 retries used up)");
  EXPECT_EQ(Judge(MakeJob(kRunning, 0, 0), AttemptKind::kTrain, end).state, kFailed);
}

TEST(Judge, ErrorsThatWouldComeAgainAreNotRetried) {
  for (const Code code :
       {Code::kInvalidArgument, Code::kNotFound, Code::kPermissionDenied, Code::kDataLoss}) {
    EXPECT_EQ(
        Judge(MakeJob(), AttemptKind::kTrain, WithResult("failed", code, "MODEL_BROKEN")).state,
        kFailed);
  }
  const AttemptEnd nonfinite = WithResult("failed", Code::kInternal, "NONFINITE_LOSS");
  EXPECT_EQ(Judge(MakeJob(), AttemptKind::kTrain, nonfinite).reason, "NONFINITE_LOSS");
  EXPECT_EQ(Judge(MakeJob(), AttemptKind::kTrain, nonfinite).state, kFailed);
  // Planned before anything was allocated; running out of memory may have been another's doing.
  const auto memory = [](const char* why) {
    return Judge(
        MakeJob(), AttemptKind::kTrain, WithResult("failed", Code::kResourceExhausted, why));
  };
  EXPECT_EQ(memory("NOT_ENOUGH_MEMORY").state, kFailed);
  EXPECT_EQ(memory("NOT_ENOUGH_MEMORY").reason, "NOT_ENOUGH_MEMORY");
  EXPECT_EQ(memory("OUT_OF_MEMORY").state, kRecovering);
}

TEST(Judge, InterruptionsRecoverEvenWithoutRetries) {
  const Job job = MakeJob(kRunning, 0, 0);
  const auto check = [&](const AttemptEnd& end, std::string_view why) {
    const Verdict verdict = Judge(job, AttemptKind::kTrain, end);
    EXPECT_EQ(verdict.state, kRecovering) << why;
    EXPECT_EQ(verdict.reason, why);
    EXPECT_FALSE(verdict.uses_retry);
  };
  check(WithResult("stopped"), reason::kInterrupted);
  check(WithResult("killed"), reason::kInterrupted);
  check({.kind = Kind::kRebooted, .result = {}, .detail = ""}, reason::kNodeRebooted);
  check({.kind = Kind::kNeverStarted, .result = {}, .detail = ""}, reason::kInterrupted);
  check({.kind = Kind::kInterrupted, .result = {}, .detail = "preempted"}, reason::kInterrupted);
}

TEST(Judge, ALostRunnerUsesARetry) {
  const AttemptEnd lost{.kind = Kind::kLost, .result = {}, .detail = "see runner.log"};
  const Verdict verdict = Judge(MakeJob(kRunning, 1, 0), AttemptKind::kTrain, lost);
  EXPECT_EQ(verdict.state, kRecovering);
  EXPECT_TRUE(verdict.uses_retry);
  EXPECT_EQ(Judge(MakeJob(kRunning, 1, 1), AttemptKind::kTrain, lost).reason, reason::kAttemptLost);
}

TEST(Judge, AWorkerThatRanOutOfDiskPausesItsJob) {
  const Verdict verdict = Judge(
      MakeJob(), AttemptKind::kTrain, WithResult("stopped", Code::kOk, "DISK_FULL", "no space"));
  EXPECT_EQ(verdict.state, kPaused);
  EXPECT_EQ(verdict.reason, reason::kDiskFull);
}

TEST(Judge, TheTimeLimitIsAFailure) {
  const Verdict verdict =
      Judge(MakeJob(), AttemptKind::kTrain, WithResult("killed", Code::kOk, "TIME_LIMIT_EXCEEDED"));
  EXPECT_EQ(verdict.state, kFailed);
  EXPECT_EQ(verdict.reason, reason::kTimeLimitExceeded);
}

// Whatever ends an attempt, the verdict is a step that the table allows.
class EveryVerdict : public ::testing::Test {
 protected:
  static void Expect(const Job& job, AttemptKind kind, const AttemptEnd& end) {
    const Verdict verdict = Judge(job, kind, end);
    EXPECT_TRUE(CanTransition(job.state, verdict.state))
        << JobStateName(job.state) << " to " << JobStateName(verdict.state) << " for "
        << (end.result ? end.result->outcome + " " + end.result->reason : "no result");
  }

  static void TryAll(const Job& job, AttemptKind kind) {
    for (const std::string outcome : {"done", "failed", "stopped", "killed", "odd"}) {
      for (const Code code : {Code::kOk, Code::kInternal, Code::kInvalidArgument}) {
        for (const std::string why :
             {"", "DISK_FULL", "NONFINITE_LOSS", "TIME_LIMIT_EXCEEDED", "X"}) {
          Expect(job, kind, WithResult(outcome, code, why));
        }
      }
    }
    for (const Kind end : {Kind::kLost, Kind::kNeverStarted, Kind::kRebooted, Kind::kStartFailed}) {
      Expect(job, kind, {.kind = end, .result = {}, .detail = ""});
    }
  }
};

TEST_F(EveryVerdict, IsLegal) {
  const std::vector<std::pair<JobState, Intent>> jobs = {{kStarting, Intent::kNone},
                                                         {kRunning, Intent::kNone},
                                                         {kPausing, Intent::kPause},
                                                         {kCancelling, Intent::kCancel},
                                                         {kCancelling, Intent::kCancelNow}};
  for (const auto& [state, intent] : jobs) {
    for (const int used : {0, 2}) {
      TryAll(MakeJob(state, 2, used, intent), AttemptKind::kTrain);
      const JobState preparing = intent == Intent::kNone ? kValidating : state;
      TryAll(MakeJob(preparing, 2, used, intent), AttemptKind::kPrepare);
    }
  }
}

TEST(RetryDelay, DoublesUpToAMinute) {
  EXPECT_EQ(RetryDelayMicros(1, 1'000'000), 1'000'000);
  EXPECT_EQ(RetryDelayMicros(2, 1'000'000), 2'000'000);
  EXPECT_EQ(RetryDelayMicros(5, 1'000'000), 16'000'000);
  EXPECT_EQ(RetryDelayMicros(50, 1'000'000), 60'000'000);
}

}  // namespace
}  // namespace mft::server
