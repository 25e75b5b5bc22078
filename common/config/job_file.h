// SPDX-License-Identifier: Apache-2.0
// What the daemon hands to an attempt: <state>/jobs/<job>/job.json (the job, written once) and
// attempts/NNNN/attempt.json (this try of it). Both carry a version; see server/README.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/config/job_spec.h"

namespace mft {

inline constexpr int kJobFileVersion = 1;

struct JobFile {
  std::string job_id;  // "" when stand-alone
  std::string owner;
  std::string request_id;
  std::string request_hash;  // SHA-256 of the request, for idempotent submits
  int64_t created_micros = 0;
  std::string secret;  // file with the W&B key, "secrets/<job>" in the state directory; "": none
  JobSpec spec;        // resolved: absolute paths, name filled in
};

enum class AttemptKind { kPrepare, kTrain };
std::string_view AttemptKindName(AttemptKind kind);  // "prepare", "train"

struct AttemptFile {
  int attempt = 0;         // from 1
  std::string attempt_id;  // random; MFT_ATTEMPT of every process
  AttemptKind kind = AttemptKind::kTrain;
  std::string device = "cpu";  // resolved: cpu | cuda
  int ranks = 1;
  int threads = 1;                         // per rank
  int ranks_per_node = 0;                  // srun starts them, so many a node; 0: the runner does
  std::string srun = "srun";               // the program; without a folder it is looked for in PATH
  std::vector<std::string> gpu_uuids;      // one a rank with cuda
  std::string cache_root;                  // where token caches are made (prepare)
  std::string data_cache;                  // the token cache to train from (train)
  int64_t grace_ms = 120'000;              // from SIGTERM to SIGKILL of the ranks
  int64_t time_limit_ms = 0;               // 0: none
  std::vector<std::string> trackers;       // services that get the metrics: wandb, mlflow
  std::string tracker_python = "python3";  // interpreter that has their clients
};

// The services that a job's metrics go to: those of "wandb" and "mlflow" whose section is filled
// in.
std::vector<std::string> TrackersOf(const JobSpec& spec);

// Read* refuse another version with one clear message.
Result<JobFile> ReadJobFile(const std::string& path);
Status WriteJobFile(const std::string& path, const JobFile& file);  // atomic and durable
Result<AttemptFile> ReadAttemptFile(const std::string& path);
Status WriteAttemptFile(const std::string& path, const AttemptFile& file);

}  // namespace mft
