// SPDX-License-Identifier: Apache-2.0
// What mftd says to Slurm's programs and what it makes of their answers. Pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/config/server_config.h"

namespace mft::server {

// One training attempt on its way to Slurm.
struct SlurmRequest {
  std::string attempt_dir;  // on storage that the nodes share
  std::string attempt_id;
  std::string runner;       // path of mft-runner, the same on the nodes
  std::string secret_path;  // file with the key for the job's tracker; "": none
  std::string comment;      // for people
  bool cuda = false;
  int ranks = 1;
  int ranks_per_node = 0;     // the most on one node; 0: all on one
  int threads = 1;            // per rank
  int64_t grace_ms = 0;       // from a signal to the kill, as the daemon counts
  int64_t time_limit_ms = 0;  // kept by the runner; 0: none
  bool low_priority = false;
};

// A job as squeue lists it.
struct SlurmJob {
  std::string id;      // digits; "": not known
  std::string state;   // PENDING, RUNNING, ...; "": not known
  std::string reason;  // why it is pending
  std::string node;    // where it runs
  bool operator==(const SlurmJob&) const = default;
};
using SlurmJobs = std::map<std::string, SlurmJob>;  // by attempt id

enum class SlurmLife {
  kWaiting,  // no process of it can run now
  kAlive,    // runs, or may: every state that is not known to be another kind counts as this one
  kOver,     // it ended and does not come back
};
SlurmLife LifeOf(std::string_view state);

// "mft-<attempt id>": by it the attempt is found again, whoever submitted it and died.
std::string SlurmJobName(std::string_view attempt_id);

// The batch script: it becomes mft-runner, which takes the attempt's lock itself.
std::string SlurmScript(const SlurmRequest& request);

// The words behind `sbatch`, the script's path last. The site's own `arguments` override the
// resources; name, output, signal and --no-requeue are not theirs to change.
std::vector<std::string> SbatchArguments(const SlurmConfig& config,
                                         const SlurmRequest& request,
                                         const std::string& script_path);

// The job id in the answer of `sbatch --parsable`: "17" or "17;cluster".
Result<std::string> ParseSbatch(std::string_view out);

// The words behind `squeue`, and its answer: every job of this user, of which those named like an
// attempt are kept. Lines of other shapes belong to others and are skipped. Where two jobs have one
// name, the one that is not over counts.
std::vector<std::string> SqueueArguments();
SlurmJobs ParseSqueue(std::string_view out);

enum class SlurmSignal {
  kTerminate,   // SIGTERM to the runner: checkpoint, then stop
  kCheckpoint,  // SIGUSR1 to the runner: checkpoint and go on
  kDequeue,     // away with a job that has not begun; one that runs is left alone
  kKill,        // SIGKILL to every process of the job
};

// The words behind `scancel`. The name goes with the id: ids come round again.
std::vector<std::string> ScancelArguments(SlurmSignal signal,
                                          std::string_view attempt_id,
                                          std::string_view job_id);

}  // namespace mft::server
