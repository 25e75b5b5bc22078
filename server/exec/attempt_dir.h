// SPDX-License-Identifier: Apache-2.0
// Directories and locks of attempts on disk.
#pragma once

#include <string>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"
#include "common/config/job_file.h"

namespace mft::server {

inline constexpr std::string_view kAttemptFileName = "attempt.json";
inline constexpr std::string_view kAttemptLockName = "lock";
inline constexpr std::string_view kRunnerJournalName = "runner.jsonl";

// Journal of a rank: "rank-0.jsonl".
std::string RankJournalName(int rank);

// Makes `dir` with its attempt.json, durable. ALREADY_EXISTS if the directory is there.
Status CreateAttemptDir(const std::string& dir, const AttemptFile& file);

// True: somebody holds the attempt's lock, so its runner lives. False: it is dead, or never was.
// Takes and releases the lock to find out: only the daemon may ask.
Result<bool> AttemptLockHeld(const std::string& attempt_dir);

// False: nobody lives in the attempt, and from now on nobody can: its runner.jsonl is there, empty
// if no runner came that far, and a runner refuses an attempt that has one. For attempts whose
// runner somebody else starts, perhaps late. True: somebody holds the lock; nothing was changed.
Result<bool> AttemptLivesElseClose(const std::string& attempt_dir);

// flock on <lock_dir>/mft-gpu-<uuid> for each GPU, so that the daemons of two people do not share
// one. FAILED_PRECONDITION (GPU_LOCKED) names the GPU that somebody else holds; then none is kept.
Result<std::vector<UniqueFd>> LockGpus(const std::string& lock_dir,
                                       const std::vector<std::string>& uuids);

}  // namespace mft::server
