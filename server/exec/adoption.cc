// SPDX-License-Identifier: Apache-2.0
#include "server/exec/adoption.h"

#include <algorithm>
#include <vector>

namespace mft::server {

std::optional<AttemptProcess> OpenRunner(const std::string& attempt_id,
                                         int pid,
                                         int64_t start_ticks) {
  if (pid <= 0) {
    return std::nullopt;
  }
  std::optional<AttemptProcess> process = OpenAttemptProcess(pid, attempt_id);
  return process && process->start_ticks == start_ticks ? std::move(process) : std::nullopt;
}

std::optional<AttemptProcess> FindRunner(const std::string& attempt_id) {
  std::vector<AttemptProcess> all = FindAttemptProcesses(attempt_id);
  for (AttemptProcess& process : all) {
    const auto is_parent = [&process](const AttemptProcess& other) {
      return other.pid == process.parent_pid;
    };
    if (std::none_of(all.begin(), all.end(), is_parent)) {
      return std::move(process);
    }
  }
  return std::nullopt;
}

}  // namespace mft::server
