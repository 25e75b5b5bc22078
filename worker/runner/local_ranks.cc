// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/local_ranks.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "common/base/log.h"
#include "common/base/processes.h"
#include "common/base/strings.h"
#include "worker/runner/child_process.h"
#include "worker/runner/rank_command.h"

namespace mft::runner {

LocalRanks::LocalRanks(AttemptFile attempt, std::string dir, std::string bin_dir)
    : attempt_(std::move(attempt)),
      dir_(std::move(dir)),
      bin_dir_(std::move(bin_dir)),
      pids_(attempt_.kind == AttemptKind::kTrain ? static_cast<size_t>(attempt_.ranks) : 1, -1) {}

std::vector<RankEnd> LocalRanks::Start() {
  const std::string world = std::to_string(attempt_.ranks);
  for (size_t i = 0; i < pids_.size(); ++i) {
    const int rank = static_cast<int>(i);
    std::vector<std::pair<std::string, std::string>> variables = RankVariables(attempt_);
    variables.insert(variables.end(),
                     {{"RANK", std::to_string(rank)},
                      {"LOCAL_RANK", std::to_string(rank)},
                      {"WORLD_SIZE", world},
                      {"LOCAL_WORLD_SIZE", world}});
    const auto pid = StartChild({.arguments = RankArguments(attempt_.kind, dir_, bin_dir_),
                                 .variables = std::move(variables),
                                 .log_path = RankFile(dir_, rank, ".log")});
    if (!pid.ok()) {
      return {{.rank = rank,
               .why = Status(pid.status().code(), "START_FAILED", pid.status().message())}};
    }
    pids_[i] = *pid;
    LogInfo(StrCat("rank ", rank, " is process ", *pid));
  }
  return {};
}

// A pid that was not reaped cannot be another process's.
void LocalRanks::Signal(int signal) {
  for (const pid_t pid : pids_) {
    if (pid > 0) {
      kill(pid, signal);
    }
  }
}

void LocalRanks::Kill(int64_t /*now_micros*/) {
  Signal(SIGKILL);
  KillAttemptProcesses(attempt_.attempt_id, getpid());
}

std::vector<RankEnd> LocalRanks::ChildEnded(pid_t pid, int wait_status) {
  const auto found = std::ranges::find(pids_, pid);
  if (found == pids_.end()) {
    return {};
  }
  *found = -1;
  return {{.rank = static_cast<int>(found - pids_.begin()),
           .exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1,
           .signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0}};
}

int LocalRanks::num_alive() const {
  return static_cast<int>(std::ranges::count_if(pids_, [](pid_t pid) { return pid > 0; }));
}

std::vector<std::string> LocalRanks::log_paths() const {
  std::vector<std::string> paths;
  for (size_t i = 0; i < pids_.size(); ++i) {
    paths.push_back(RankFile(dir_, static_cast<int>(i), ".log"));
  }
  return paths;
}

}  // namespace mft::runner
