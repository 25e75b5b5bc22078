// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/rank_command.h"

#include <cstdlib>

#include "common/base/files.h"
#include "common/base/processes.h"
#include "common/base/strings.h"
#include "common/journal/build.h"
#include "common/journal/record.h"

namespace mft::runner {

namespace {

// OpenMP threads that wait for each other spin for milliseconds by default: on a busy machine a
// step takes 1.4 times as long and burns 1.6 times the processor time (25 steps of the quickstart,
// load 10 on 2 cores: 10.2 s, 8.8 s of it used, against 7.2 s and 5.6 s).
std::string SpinCount() {
  const char* chosen = std::getenv("GOMP_SPINCOUNT");
  return chosen != nullptr ? chosen : "2000";
}

// CUDA_VISIBLE_DEVICES: the leased GPUs and no other; LOCAL_RANK counts among them. Without a
// lease, those that Slurm gave to this process, or none.
std::string VisibleGpus(const std::string& device, const std::vector<std::string>& leased_uuids) {
  if (device != "cuda") {
    return "";
  }
  const char* given = std::getenv("CUDA_VISIBLE_DEVICES");
  return leased_uuids.empty() && given != nullptr ? given : Join(leased_uuids, ",");
}

}  // namespace

std::string RankProgram(AttemptKind kind) {
  return kind == AttemptKind::kTrain ? "mft-worker" : "mft-data";
}

std::vector<std::string> RankArguments(AttemptKind kind,
                                       const std::string& attempt_dir,
                                       const std::string& bin_dir) {
  return {JoinPath(bin_dir, RankProgram(kind)),
          std::string(AttemptKindName(kind)),
          "--job",
          AbsolutePath(JoinPath(attempt_dir, "../../job.json")),
          "--attempt-dir",
          attempt_dir};
}

std::vector<std::pair<std::string, std::string>> RankVariables(const AttemptFile& attempt) {
  return {{std::string(kAttemptVariable), attempt.attempt_id},
          {std::string(kBuildVariable), std::string(BuildId())},
          {"GOMP_SPINCOUNT", SpinCount()},
          {"CUDA_VISIBLE_DEVICES", VisibleGpus(attempt.device, attempt.gpu_uuids)}};
}

}  // namespace mft::runner
