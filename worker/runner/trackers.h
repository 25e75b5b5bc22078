// SPDX-License-Identifier: Apache-2.0
// The side processes that send metrics to W&B and MLflow (worker/track/README.md): started,
// started again, given a last chance. They read the journal; nothing waits for them but Check and
// the flush at the end.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace mft::runner {

struct TrackerOptions {
  std::vector<std::string> services;  // wandb, mlflow
  std::string python;                 // interpreter that has their clients, looked for in PATH
  std::string bin_dir;                // of mft-track
  std::string attempt_dir;            // the job is ../../job.json; logs are written here
  std::vector<std::pair<std::string, std::string>> variables;  // of every process of the attempt
  int secret_fd = -1;  // holds the W&B key, becomes their standard input; -1: none
};

// Times are CLOCK_BOOTTIME microseconds. Threads: one at a time.
class Trackers {
 public:
  // For people: a level and one sentence.
  using Tell = std::function<void(std::string_view level, const std::string& text)>;

  Trackers(TrackerOptions options, Tell tell);

  // Whether the clients are there. INVALID_ARGUMENT (TRACKER_UNAVAILABLE) says what to do. Blocks,
  // a minute at most.
  Status Check();

  // Starts those that do not run, as far as they are due: at first, and a while after they failed.
  void StartDue(int64_t now_micros);
  // When StartDue has something to do.
  std::optional<int64_t> Deadline() const;

  // Takes note of a child's end; false if it is none of them.
  bool Ended(pid_t pid, int wait_status, int64_t now_micros);

  // The ranks have ended: each sends what is left, one that does not run is started for it, none
  // is started again.
  void Finish();
  int num_alive() const;
  // Says which have not finished; the caller kills them.
  void GiveUp() const;

  std::vector<std::string> log_paths() const;

 private:
  struct Tracker {
    std::string service;
    std::string log_path;
    pid_t pid = -1;                          // -1: does not run
    std::optional<int64_t> start_at_micros;  // none: never again
    int num_failures = 0;
  };

  Result<pid_t> Start(const Tracker& tracker, std::string_view action) const;
  void Failed(Tracker& tracker, const std::string& why, int64_t now_micros);

  TrackerOptions options_;
  Tell tell_;
  std::vector<Tracker> trackers_;
  bool finishing_ = false;
};

}  // namespace mft::runner
