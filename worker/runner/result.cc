// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/result.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <ranges>

#include "common/base/strings.h"

namespace mft::runner {

namespace {

constexpr std::string_view kDone = "done";
constexpr std::string_view kStopped = "stopped";
constexpr std::string_view kFailed = "failed";
constexpr std::string_view kKilled = "killed";

bool IsDone(const RankExit& exit) {
  return exit.final.has_value() && exit.final->outcome == kDone;
}

// The inverse of ExitCodeFor, for a rank that left nothing but its exit code.
Code CodeForExit(int exit_code) {
  for (const Code code : {Code::kInvalidArgument,
                          Code::kPermissionDenied,
                          Code::kNotFound,
                          Code::kFailedPrecondition,
                          Code::kResourceExhausted,
                          Code::kUnavailable}) {
    if (ExitCodeFor(code) == exit_code) {
      return code;
    }
  }
  return Code::kInternal;
}

bool EndedForAnother(const RankExit& exit) {
  if (exit.final.has_value()) {
    return exit.final->reason == kReasonRankLost;
  }
  // A rank that was computing when another one was lost ends without its last word (rank_watch.h).
  return exit.exit_code == ExitCodeFor(Code::kUnavailable);
}

std::string RankName(const AttemptOutcome& outcome, int rank) {
  return outcome.ranks.size() == 1 ? outcome.program : StrCat("rank ", rank);
}

std::string HowItEnded(const RankExit& exit) {
  if (exit.signal == SIGKILL) {
    return "was killed by a SIGKILL that the runner did not send; the kernel does this when memory "
           "runs out";
  }
  if (exit.signal != 0) {
    return StrCat("was ended by signal ", exit.signal, " (", strsignal(exit.signal), ")");
  }
  return StrCat("exited with ", exit.exit_code, " and left no final record");
}

// What another rank says of the first one that failed, which could not say where it was.
std::string Testimony(const AttemptOutcome& outcome) {
  const auto witness = std::ranges::find_if(outcome.ranks, [](const RankExit& other) {
    return other.final.has_value() && other.final->reason == kReasonRankLost;
  });
  return witness == outcome.ranks.end()
             ? ""
             : StrCat("; rank ", witness->rank, " says: ", witness->final->message);
}

void DescribeFailure(const AttemptOutcome& outcome, ResultRecord& result) {
  const RankExit& exit = outcome.ranks[static_cast<size_t>(outcome.first_failed)];
  const std::string name = RankName(outcome, outcome.first_failed);
  result.outcome = kFailed;
  if (!outcome.first_failure.ok()) {
    result.code = static_cast<int>(outcome.first_failure.code());
    result.reason = outcome.first_failure.reason();
    result.message = StrCat(name, ": ", outcome.first_failure.message(), Testimony(outcome));
    return;
  }
  if (exit.final.has_value()) {
    result.code = exit.final->code;
    result.reason = exit.final->reason;
    result.message =
        outcome.ranks.size() == 1 ? exit.final->message : StrCat(name, ": ", exit.final->message);
    return;
  }
  result.code = static_cast<int>(exit.signal == 0 ? CodeForExit(exit.exit_code) : Code::kInternal);
  const bool for_another = outcome.ranks.size() > 1 && EndedForAnother(exit);
  result.reason = for_another ? kReasonRankLost : "WORKER_FAILED";
  result.message = StrCat(name, " ", HowItEnded(exit));
  if (!outcome.last_log_line.empty()) {
    result.message += StrCat("; its log ends with: ", outcome.last_log_line);
  }
  result.message += Testimony(outcome);
}

void DescribeTimeLimit(const AttemptOutcome& outcome, ResultRecord& result) {
  result.outcome = kKilled;
  result.code = static_cast<int>(Code::kDeadlineExceeded);
  result.reason = "TIME_LIMIT_EXCEEDED";
  result.message = StrCat(
      "the time limit of ",
      FormatDuration(static_cast<double>(outcome.time_limit_ms) / 1e3),
      " ran out",
      outcome.killed ? ", and the ranks had to be killed" : "; the ranks stopped by themselves");
}

void DescribeKill(const AttemptOutcome& outcome, ResultRecord& result) {
  const auto late = std::ranges::find_if_not(outcome.ranks, EndedWell);
  const int rank = late == outcome.ranks.end() ? 0 : late->rank;
  result.outcome = kKilled;
  result.code = static_cast<int>(Code::kDeadlineExceeded);
  result.reason = "GRACE_PERIOD_EXCEEDED";
  result.message = StrCat(RankName(outcome, rank),
                          " had not stopped ",
                          FormatDuration(static_cast<double>(outcome.grace_ms) / 1e3),
                          " after it was asked to, and was killed");
}

// Asked to, or by itself: then its reason says why.
void DescribeStop(const AttemptOutcome& outcome, ResultRecord& result) {
  result.outcome = kStopped;
  for (const RankExit& exit : outcome.ranks) {
    if (exit.final.has_value() && exit.final->outcome == kStopped) {
      result.code = exit.final->code;
      result.reason = exit.final->reason;
      result.message = exit.final->message;
      return;
    }
  }
}

}  // namespace

bool EndedWell(const RankExit& exit) {
  return exit.final.has_value() &&
         (exit.final->outcome == kDone || exit.final->outcome == kStopped);
}

bool IsNearerCause(const RankExit& exit, const RankExit& than) {
  return !EndedForAnother(exit) && EndedForAnother(than);
}

ResultRecord MakeResult(const AttemptOutcome& outcome) {
  ResultRecord result;
  result.ranks = outcome.ranks;
  result.first_failed = outcome.first_failed;
  if (outcome.first_failed >= 0) {
    DescribeFailure(outcome, result);
  } else if (std::ranges::all_of(outcome.ranks, IsDone)) {
    result.outcome = kDone;
    for (const RankExit& exit : outcome.ranks | std::views::take(1)) {  // what it chose, and why
      result.reason = exit.final->reason;
      result.message = exit.final->message;
    }
  } else if (outcome.cause == StopCause::kTimeLimit) {
    DescribeTimeLimit(outcome, result);
  } else if (!std::ranges::all_of(outcome.ranks, EndedWell)) {
    DescribeKill(outcome, result);
  } else {
    DescribeStop(outcome, result);
  }
  return result;
}

}  // namespace mft::runner
