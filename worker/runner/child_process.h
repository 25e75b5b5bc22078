// SPDX-License-Identifier: Apache-2.0
// Starts the processes of an attempt: ranks and trackers.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace mft::runner {

struct ChildCommand {
  std::vector<std::string> arguments;  // the first is the program's path
  // Set in the process's environment, which else is ours.
  std::vector<std::pair<std::string, std::string>> variables;
  std::string log_path;  // stdout and stderr, appended
  int stdin_fd = -1;     // -1: /dev/null
  int stdout_fd = -1;    // -1: the log
  bool outlives_us = false;
};

// Starts the process and returns once it runs the program, or with the errno of what failed.
// It has: no descriptor but 0, 1, 2; SIGTERM and SIGUSR1 blocked, nothing
// else; SIGKILL when this process dies, unless it outlives us; oom_score_adj 500. Not for a process
// with threads.
Result<pid_t> StartChild(const ChildCommand& command);

}  // namespace mft::runner
