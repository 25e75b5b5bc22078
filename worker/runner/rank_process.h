// SPDX-License-Identifier: Apache-2.0
// Starts one rank.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace mft::runner {

struct RankCommand {
  std::vector<std::string> arguments;  // the first is the program's path
  // Set in the rank's environment, which else is ours.
  std::vector<std::pair<std::string, std::string>> variables;
  std::string log_path;  // stdout and stderr, appended
};

// Starts the process and returns once it runs the program, or with the errno of what failed.
// The rank has: stdin /dev/null; no descriptor but 0, 1, 2; SIGTERM and SIGUSR1 blocked, nothing
// else; SIGKILL when this process dies; oom_score_adj 500. Not for a process with threads.
Result<pid_t> StartRank(const RankCommand& command);

}  // namespace mft::runner
