// SPDX-License-Identifier: Apache-2.0
// Slurm by its programs: sbatch, squeue, scancel. Everything here blocks, up to kSlurmDeadlineMs.
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>

#include "common/base/status.h"
#include "server/exec/slurm_job.h"

namespace mft::server {

// One command. They wait for a controller that is busy or down, each in its own way.
inline constexpr int64_t kSlurmDeadlineMs = 30'000;

// Threads: any, one call at a time. `stop` ends a call within about two seconds.
class SlurmClient {
 public:
  explicit SlurmClient(SlurmConfig config) : config_(std::move(config)) {}

  // NOT_FOUND names the program that is missing. Does not ask whether Slurm answers.
  Status CheckPrograms() const;

  // Writes the batch script into the attempt's directory and submits it; the id of the job. After
  // an error the job may exist all the same (the answer was lost): ask List.
  Result<std::string> Submit(const SlurmRequest& request, const std::stop_token& stop) const;
  // Every attempt of this user that Slurm remembers. An error says nothing about any of them.
  Result<SlurmJobs> List(const std::stop_token& stop) const;
  // Ok: Slurm took it. It may be too early or too late for the job all the same.
  Status Signal(SlurmSignal signal,
                const std::string& attempt_id,
                const std::string& job_id,
                const std::stop_token& stop) const;

 private:
  Result<std::string> Run(const std::string& program,
                          std::vector<std::string> words,
                          const std::stop_token& stop) const;

  const SlurmConfig config_;
};

}  // namespace mft::server
