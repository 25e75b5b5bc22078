// SPDX-License-Identifier: Apache-2.0
// A job and its attempts as the daemon remembers them: plain values, no I/O.
// Only server/control changes them (through CanTransition), on its one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/config/job_file.h"
#include "common/journal/record.h"
#include "server/jobs/transitions.h"

namespace mft::server {

// What somebody asked a job with a running attempt to do. Committed before the signal; only grows.
enum class Intent { kNone = 0, kPause = 1, kCancel = 2, kCancelNow = 3 };

struct Lease {
  std::string id;    // "gpu:0", or "cpu:0" for a share of the node's cores
  std::string uuid;  // of a GPU
  int cores = 0;     // of a CPU lease
  bool operator==(const Lease&) const = default;
};

struct Progress {
  int64_t step = 0;
  int64_t max_steps = 0;
  std::optional<double> train_loss;
  std::optional<double> eval_loss;
  double tokens_per_second = 0;
  double eta_seconds = 0;
  std::string phase;
  int64_t last_checkpoint_step = 0;
};

struct Job {
  std::string id;
  // shared_ptr: every snapshot shows it, and it never changes after the submit.
  std::shared_ptr<const JobFile> file;
  std::string file_problem;  // why job.json cannot be read; "" when it can
  JobState state = JobState::kQueued;
  std::string reason;
  std::string message;
  int64_t created_micros = 0;
  int64_t started_micros = 0;  // first time RUNNING; 0: not yet
  int64_t ended_micros = 0;    // 0: not yet
  int attempt = 0;             // number of the newest training attempt; 0: none yet
  int prepare_attempt = 0;     // number of the newest preparation; 0: none yet
  int retries_used = 0;
  Intent intent = Intent::kNone;
  std::string data_cache;  // directory of the token cache; "" until prepared
  Progress progress;
  std::string estimate;            // serialized mft.v1.Estimate; opaque here
  int64_t last_sequence = 0;       // of the newest event
  int64_t compacted_sequence = 0;  // step events up to here are gone; 0: none
};

enum class Executor { kLocal, kSlurm };

// One try of a job: a process tree under one mft-runner.
struct Attempt {
  std::string job_id;
  AttemptKind kind = AttemptKind::kTrain;
  int number = 0;                        // from 1, per kind
  std::string id;                        // random; MFT_ATTEMPT of its processes
  Executor executor = Executor::kLocal;  // who runs it
  std::string slurm_job;                 // its id in Slurm; "": not there, or not known yet
  std::string boot_id;                   // of the daemon's node
  int pid = 0;                           // of the runner; 0: not known
  int64_t pid_start_ticks = 0;
  int64_t created_micros = 0;
  int64_t created_boot_micros = 0;         // CLOCK_BOOTTIME
  int64_t ended_micros = 0;                // 0: not ended
  int64_t stop_requested_boot_micros = 0;  // CLOCK_BOOTTIME of the SIGTERM; 0: none was sent
  int64_t grace_ms = 0;
  int64_t time_limit_ms = 0;  // 0: none
  std::vector<Lease> leases;
  // The runner's result, kept as soon as it is read: its journal offset is then past it.
  std::optional<ResultRecord> result;
  std::string outcome;  // of the result, or "lost", ...; "" until the attempt ended
};

}  // namespace mft::server
