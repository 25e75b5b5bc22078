// SPDX-License-Identifier: Apache-2.0
// Ranks on several nodes: one step of srun, whose tasks are the ranks' keepers (rank_keeper.h).
// Standard input of srun reaches all of them, their last words come through its standard output.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "worker/runner/rank_launcher.h"

namespace mft::runner {

// srun and its arguments.
std::vector<std::string> SrunArguments(const AttemptFile& attempt,
                                       const std::string& dir,
                                       const std::string& bin_dir);
// What srun and with it every rank gets, beside the variables of a rank anywhere: nothing that a
// rank would believe more than what srun says of it.
std::vector<std::pair<std::string, std::string>> SrunVariables(const AttemptFile& attempt);

// Not on signals: SIGTERM makes srun kill the step, and others it keeps for itself.
class SrunRanks : public RankLauncher {
 public:
  SrunRanks(AttemptFile attempt, std::string dir, std::string bin_dir);

  std::vector<RankEnd> Start() override;
  void Signal(int signal) override;
  // First the keepers kill. Where srun has not ended two seconds later it is told to kill the step,
  // and after five it is killed itself: then Slurm ends the step, or the job.
  void Kill(int64_t now_micros) override;
  // Of srun: every rank that has not been heard of ended unseen.
  std::vector<RankEnd> ChildEnded(pid_t pid, int wait_status) override;
  int fd() const override { return words_.get(); }
  std::vector<RankEnd> Heard() override;
  int num_alive() const override;
  bool settling() const override { return srun_ > 0; }
  std::vector<std::string> log_paths() const override { return {log_path_}; }

 private:
  Status StartSrun();
  void Say(char word);
  Status WhyUnseen(int rank, int wait_status) const;

  AttemptFile attempt_;
  std::string dir_;
  std::string bin_dir_;
  std::string log_path_;
  pid_t srun_ = -1;
  UniqueFd commands_;        // a socket: to write to a srun that is gone raises no SIGPIPE
  UniqueFd words_;           // invalid before the start and behind the end
  std::string unread_;       // of a line that is not whole
  std::vector<bool> alive_;  // by rank
  std::optional<int64_t> kill_began_micros_;
  int srun_got_ = 0;  // the signal that srun was sent last
};

}  // namespace mft::runner
