// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/retry.h"

#include <algorithm>

#include "common/base/strings.h"

namespace mft::server {

namespace {

using enum JobState;

// Trying again cannot help: the same input gives the same error.
bool IsPermanent(const ResultRecord& result) {
  if (result.reason == reason::kNonfiniteLoss || result.reason == reason::kTimeLimitExceeded ||
      result.reason == reason::kNotEnoughMemory) {
    return true;
  }
  switch (static_cast<Code>(result.code)) {
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kAlreadyExists:
    case Code::kPermissionDenied:
    case Code::kFailedPrecondition:
    case Code::kOutOfRange:
    case Code::kUnimplemented:
    case Code::kDataLoss:
      return true;
    case Code::kOk:
    case Code::kCancelled:
    case Code::kUnknown:
    case Code::kDeadlineExceeded:
    case Code::kResourceExhausted:
    case Code::kAborted:
    case Code::kInternal:
    case Code::kUnavailable:
      return false;
  }
  return false;
}

std::string Told(const ResultRecord& result, std::string_view otherwise) {
  return result.message.empty() ? std::string(otherwise) : result.message;
}

// Another attempt while the budget lasts, else the end.
Verdict Retry(const Job& job, std::string_view why, const std::string& message) {
  const int64_t budget = job.file->spec.mftd.retries;
  if (job.retries_used >= budget) {
    const std::string tail =
        budget == 0 ? "" : StrCat(" (", budget, budget == 1 ? " retry" : " retries", " used up)");
    return {kFailed, std::string(why), StrCat(message, tail), false};
  }
  return {kRecovering,
          std::string(why),
          StrCat(message, "; retry ", job.retries_used + 1, " of ", budget, " follows"),
          true};
}

Verdict Interrupted(std::string_view why, const std::string& message) {
  return {
      kRecovering, std::string(why), StrCat(message, "; it goes on with the next attempt"), false};
}

Verdict JudgeFailure(const Job& job, AttemptKind kind, const ResultRecord& result) {
  const std::string message = Told(result, "a process of the job failed");
  if (kind == AttemptKind::kTrain && result.reason == reason::kDataCacheGone) {
    return Retry(job, reason::kDataCacheGone, message);
  }
  const bool permanent = IsPermanent(result);
  if (permanent && kind == AttemptKind::kPrepare &&
      (result.reason.empty() || static_cast<Code>(result.code) == Code::kInvalidArgument)) {
    return {kFailed, std::string(reason::kValidationFailed), message, false};
  }
  const std::string why =
      result.reason.empty() ? std::string(reason::kWorkerFailed) : result.reason;
  return permanent ? Verdict{kFailed, why, message, false} : Retry(job, why, message);
}

Verdict JudgeStop(const ResultRecord& result) {
  // The worker gave up by itself and kept its checkpoint: somebody has to act before it can go on.
  if (result.reason == reason::kDiskFull || result.reason == reason::kNonfiniteLoss) {
    return {
        kPaused, result.reason, Told(result, "the job stopped at its last good checkpoint"), false};
  }
  return Interrupted(reason::kInterrupted, "the attempt was stopped from outside");
}

Verdict JudgeDone(AttemptKind kind, Intent intent, const ResultRecord& result) {
  if (kind == AttemptKind::kTrain) {
    return {kSucceeded,
            result.reason.empty() ? std::string(reason::kCompleted) : result.reason,
            Told(result, "training is complete"),
            false};
  }
  if (intent >= Intent::kCancel) {
    return {kCancelled, std::string(reason::kCancelRequested), "cancelled on request", false};
  }
  return {kValidated, std::string(reason::kWaitingForDevices), "the data is prepared", false};
}

Verdict JudgeResult(const Job& job, AttemptKind kind, const ResultRecord& result) {
  if (result.outcome == "failed") {
    return JudgeFailure(job, kind, result);
  }
  if (result.outcome == "stopped") {
    return JudgeStop(result);
  }
  if (result.outcome == "killed") {
    if (result.reason == reason::kTimeLimitExceeded) {
      return {kFailed, result.reason, Told(result, "mftd.time_limit ran out"), false};
    }
    return Interrupted(reason::kInterrupted,
                       Told(result, "the attempt was killed when its grace period ran out"));
  }
  return Retry(job,
               reason::kWorkerFailed,
               StrCat("the runner reported the unknown outcome '", result.outcome, "'"));
}

std::string WithDetail(std::string_view what, const std::string& detail) {
  return detail.empty() ? std::string(what) : StrCat(what, ": ", detail);
}

}  // namespace

Verdict Judge(const Job& job, AttemptKind kind, const AttemptEnd& end) {
  const bool has_result = end.kind == AttemptEnd::Kind::kResult && end.result.has_value();
  if (has_result && end.result->outcome == "done" &&
      (kind == AttemptKind::kTrain || job.intent != Intent::kPause)) {
    return JudgeDone(kind, job.intent, *end.result);
  }
  if (job.intent >= Intent::kCancel) {
    return {kCancelled, std::string(reason::kCancelRequested), "cancelled on request", false};
  }
  if (job.intent == Intent::kPause) {
    return {kPaused, std::string(reason::kPauseRequested), "paused on request", false};
  }
  switch (end.kind) {
    case AttemptEnd::Kind::kResult:
      return JudgeResult(job, kind, *end.result);
    case AttemptEnd::Kind::kNeverStarted:
      return Interrupted(reason::kInterrupted,
                         "the daemon ended before the attempt's processes were started");
    case AttemptEnd::Kind::kRebooted:
      return Interrupted(reason::kNodeRebooted, "the node went down under the attempt");
    case AttemptEnd::Kind::kInterrupted:
      return Interrupted(reason::kInterrupted, end.detail);
    case AttemptEnd::Kind::kStartFailed:
      return Retry(
          job, reason::kStartFailed, WithDetail("the runner could not be started", end.detail));
    case AttemptEnd::Kind::kLost:
      break;
  }
  return Retry(
      job, reason::kAttemptLost, WithDetail("the runner died without a result", end.detail));
}

int64_t RetryDelayMicros(int attempts_so_far, int64_t first_micros) {
  constexpr int64_t kMinute = 60'000'000;
  const int doublings = std::clamp(attempts_so_far - 1, 0, 6);
  return std::min(kMinute, first_micros << doublings);
}

}  // namespace mft::server
