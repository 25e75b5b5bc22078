// SPDX-License-Identifier: Apache-2.0
// What is known of one attempt in Slurm, and what follows from it. Pure; the times are
// CLOCK_BOOTTIME.
//
// An attempt in Slurm lives while Slurm says so or its lock is held. It is over only when listings
// say so: one with a final state, or listings without it for `forget_micros`. A listing that failed
// says nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "server/exec/slurm_job.h"
#include "server/jobs/retry.h"

namespace mft::server {

class SlurmWatch {
 public:
  // `job_id`: where an earlier daemon noted it; "": it did not, and may have died with its sbatch
  // still under way.
  explicit SlurmWatch(std::string job_id = "") { job_.id = std::move(job_id); }

  void SubmitBegins() { submitting_ = true; }
  void SubmitEnded(const Result<std::string>& job_id);
  // A listing that began after the last submit ended, and what it has of this attempt.
  void Listed(const std::optional<SlurmJob>& job, int64_t now_micros);
  void ListFailed() { was_away_ = true; }

  const SlurmJob& job() const { return job_; }
  bool listed() const { return !job_.state.empty(); }
  // Slurm has not begun it yet: nothing of it can be in the journals.
  bool waiting() const;
  bool Over(int64_t now_micros, int64_t forget_micros) const;
  // True once after each listing: then it is worth asking the lock.
  bool TakeNews() { return std::exchange(news_, false); }

  // For an attempt that is over and has no result. `began`: its runner wrote its journal.
  // `log`: where the runner's own words are.
  AttemptEnd EndWithoutResult(bool began, const std::string& log) const;

 private:
  SlurmJob job_;
  bool submitting_ = false;
  std::string submit_error_;
  bool was_away_ = false;  // a listing failed: the submit may have failed for the same reason
  bool news_ = false;
  int64_t missing_since_ = 0;  // first of the newest listings in a row without it; 0: it is listed
};

}  // namespace mft::server
