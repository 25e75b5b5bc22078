// SPDX-License-Identifier: Apache-2.0
// One attempt of a job from start to result: starts the ranks, passes signals on, keeps the grace
// period and the time limit, leaves no process behind, and writes the attempt's result as the last
// record of runner.jsonl (README.md).
#pragma once

#include <string>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace mft::runner {

struct RunnerOptions {
  std::string attempt_dir;  // with attempt.json; the job is ../../job.json
  int lock_fd = -1;         // inherited, holds the attempt's lock; -1: take it ourselves
  int secret_fd = -1;       // inherited, holds the W&B key for the tracker; -1: none
  std::string bin_dir;      // of mft-worker, mft-data and mft-track
};

// Turns this process into the attempt's runner: a session of its own, child subreaper, SIGTERM,
// SIGUSR1, SIGINT and SIGCHLD blocked, every other open descriptor close-on-exec. For the main
// thread of a process without others, once.
//
// Ok once a result is durable, whatever it says. FAILED_PRECONDITION: the lock is not held or the
// attempt was run before; another error: the result could not be written. The lock is held until
// the process ends.
Status RunAttempt(const RunnerOptions& options, const Clock& clock = SystemClock());

}  // namespace mft::runner
