// SPDX-License-Identifier: Apache-2.0
// How the ranks of an attempt are started, signalled and seen to end: beside the runner
// (local_ranks.cc), or by srun on several nodes (srun_ranks.cc).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/config/job_file.h"

namespace mft::runner {

// How the process of a rank ended.
struct RankEnd {
  int rank = 0;
  int exit_code = -1;  // -1: ended by `signal`, or nobody saw how
  int signal = 0;
  Status why;  // why it could not be started, or was not seen to end; Ok: it ran
};

// Threads: one at a time, of a process without others.
class RankLauncher {
 public:
  virtual ~RankLauncher() = default;

  // Starts them all, once; the ranks that could not be started.
  virtual std::vector<RankEnd> Start() = 0;
  // SIGTERM or SIGUSR1, to every rank that lives.
  virtual void Signal(int signal) = 0;
  // Kills every process of the ranks, and with each call harder. CLOCK_BOOTTIME.
  virtual void Kill(int64_t now_micros) = 0;
  // A child of this process ended, which may be no rank's: the ranks that are known by it to have
  // ended.
  virtual std::vector<RankEnd> ChildEnded(pid_t pid, int wait_status) = 0;

  // What `fd` has to say of ranks that ended; -1: nothing, ever.
  virtual int fd() const { return -1; }
  virtual std::vector<RankEnd> Heard() { return {}; }

  // Ranks that were started and not told of as ended.
  virtual int num_alive() const = 0;
  // Whether something besides ranks, which ends by itself once they have, still runs.
  virtual bool settling() const { return false; }
  // The logs that this process keeps small.
  virtual std::vector<std::string> log_paths() const = 0;
};

// DIR/rank-N<suffix>.
std::string RankFile(const std::string& dir, int rank, std::string_view suffix);

// `dir`: the attempt's. `bin_dir`: of the programs. The variant that attempt.json asks for.
std::unique_ptr<RankLauncher> MakeRankLauncher(const AttemptFile& attempt,
                                               const std::string& dir,
                                               const std::string& bin_dir);

}  // namespace mft::runner
