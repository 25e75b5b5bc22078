// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "mft/v1/job.pb.h"

namespace mft::server {

// What a job's events say that the snapshot does not hold. Counts are since the daemon started.
struct JobSeries {
  static constexpr std::array kStepBounds = {
      .05, .1, .25, .5, 1., 2., 5., 10., 30., 60., 120.};  // s

  bool has_step = false;
  double learning_rate = 0;
  double grad_norm = 0;
  std::optional<double> expert_imbalance;
  int64_t tokens = 0;
  int64_t nonfinite = 0;
  int64_t restarts = 0;
  double last_step_seconds = 0;  // Unix time
  double last_checkpoint_seconds = 0;
  int64_t checkpoint_bytes = 0;
  std::array<int64_t, kStepBounds.size() + 1>
      step_buckets{};  // not cumulative; the last one is above every bound
  double step_seconds_sum = 0;
};

// Threads: safe from any thread.
class JobSeriesTable {
 public:
  struct Copy {
    std::map<std::string, JobSeries> jobs;
    std::map<std::pair<std::string, std::string>, int64_t> finished;  // by (state, reason)
  };

  void OnEvent(const v1::JobEvent& event);
  Copy Get() const;
  void Remove(const std::string& job_id);

 private:
  mutable std::mutex mutex_;  // guards what follows
  Copy data_;
};

}  // namespace mft::server
