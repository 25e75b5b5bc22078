// SPDX-License-Identifier: Apache-2.0
// What becomes of a job when an attempt has ended, and when the next attempt may begin. Pure
// functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/journal/record.h"
#include "server/jobs/job.h"

namespace mft::server {

// How an attempt ended, as far as the daemon can tell once no process of it is left.
struct AttemptEnd {
  enum class Kind {
    kResult,        // the runner wrote its result
    kLost,          // the runner died without one
    kNeverStarted,  // the daemon died between the commit of the attempt and the start of its runner
    kRebooted,      // the node went down under it
    kStartFailed,   // the runner could not be started
    kInterrupted,   // somebody else took it away
  };
  Kind kind = Kind::kLost;
  std::optional<ResultRecord> result;  // with kResult
  std::string detail;                  // with the others: what is known, for people
};

struct Verdict {
  JobState state = JobState::kFailed;
  std::string reason;
  std::string message;
  bool uses_retry = false;  // counts against mftd.retries
};

// Where the job goes. A finished job wins against a request to cancel or pause it; otherwise the
// request decides; otherwise interruptions and lost attempts recover while retries last, and errors
// of the user's making fail at once. `job` is in a state with an attempt (VALIDATING, STARTING,
// RUNNING, PAUSING, CANCELLING).
Verdict Judge(const Job& job, AttemptKind kind, const AttemptEnd& end);

// From the end of an attempt to the next one: `first_micros`, doubled with every attempt so far, at
// most a minute.
int64_t RetryDelayMicros(int attempts_so_far, int64_t first_micros);

}  // namespace mft::server
