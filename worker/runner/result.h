// SPDX-License-Identifier: Apache-2.0
// From how the ranks ended to the attempt's one result. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/journal/record.h"
#include "worker/runner/stop_plan.h"

namespace mft::runner {

// A rank whose own last word is that all is well; a crash after that word is no failure.
bool EndedWell(const RankExit& exit);

// Of two ranks that failed: a rank that ended since another one was lost is no cause, whoever of
// them is seen to end first.
bool IsNearerCause(const RankExit& exit, const RankExit& than);

struct AttemptOutcome {
  std::string program;  // "mft-worker"
  std::vector<RankExit> ranks;
  int first_failed = -1;  // of the causes; of the others only where there is no cause
  // Why there is no use in what the first failed rank says: it could not be started, or is of
  // another build. Ok: it speaks for itself.
  Status first_failure;
  std::string last_log_line;  // of the first failed rank
  StopCause cause = StopCause::kNone;
  bool killed = false;  // the runner killed what had not stopped in time
  int64_t grace_ms = 0;
  int64_t time_limit_ms = 0;
};

// A failure decides; then, if all ranks are done, so is the attempt; then the time limit, then a
// kill; otherwise the ranks stopped, with the first one's reason.
ResultRecord MakeResult(const AttemptOutcome& outcome);

}  // namespace mft::runner
