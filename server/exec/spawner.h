// SPDX-License-Identifier: Apache-2.0
// Starts the runner of an attempt.
#pragma once

#include <string>
#include <vector>

#include "common/base/processes.h"
#include "common/base/status.h"

namespace mft::server {

struct SpawnOptions {
  std::string runner;       // path of mft-runner
  std::string attempt_dir;  // with attempt.json; its row is committed
  std::string attempt_id;
  std::vector<UniqueFd> gpu_locks;  // of LockGpus; handed over to the runner
  UniqueFd secret;                  // file with the job's W&B key, for its tracker; invalid: none
};

// Takes the attempt's lock and starts
//   mft-runner --attempt-dir DIR --lock-fd N [--secret-fd M]
// in a session of its own, with SIGTERM and SIGUSR1 blocked, all other signals at their defaults,
// no descriptors but 0, 1, 2 (runner.log), the locks and the secret, and MFT_ATTEMPT in its
// environment. On return only the runner holds the locks. The runner lives also where its pidfd
// could not be opened (no descriptors left): then find it again. FAILED_PRECONDITION
// (ATTEMPT_LOCKED, GPU_LOCKED) if somebody else does.
Result<AttemptProcess> SpawnRunner(SpawnOptions options);

}  // namespace mft::server
