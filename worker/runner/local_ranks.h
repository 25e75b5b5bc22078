// SPDX-License-Identifier: Apache-2.0
// Ranks beside the runner, as children of its process.
#pragma once

#include <string>
#include <vector>

#include "worker/runner/rank_launcher.h"

namespace mft::runner {

class LocalRanks : public RankLauncher {
 public:
  LocalRanks(AttemptFile attempt, std::string dir, std::string bin_dir);

  // In order, up to the first that cannot be started.
  std::vector<RankEnd> Start() override;
  void Signal(int signal) override;
  void Kill(int64_t now_micros) override;
  std::vector<RankEnd> ChildEnded(pid_t pid, int wait_status) override;
  int num_alive() const override;
  std::vector<std::string> log_paths() const override;

 private:
  AttemptFile attempt_;
  std::string dir_;
  std::string bin_dir_;
  std::vector<pid_t> pids_;  // by rank; -1: not started, or ended
};

}  // namespace mft::runner
