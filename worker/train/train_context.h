// SPDX-License-Identifier: Apache-2.0
// What a rank is to do, from its command line, its files and torchrun's environment variables.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/config/job_file.h"
#include "worker/train/world.h"

namespace mft {

struct TrainArgs {
  std::string job;          // job.json, or a job file of the user's (.yaml, .yml)
  std::string attempt_dir;  // "": stand-alone
  std::string data_cache;   // stand-alone: the token cache's directory
};

struct TrainContext {
  JobFile job;
  std::string attempt_dir;
  std::string attempt_id;  // MFT_ATTEMPT, or attempt.json's, or a new one
  int attempt = 1;
  std::string data_cache;
  int threads = 1;              // of this rank
  std::string device = "auto";  // auto | cuda | cpu
  World world;
  std::string rendezvous_file;  // of an attempt; "": the ranks meet at the master's address
  std::string meeting_token;    // the same on every rank of the run, and of no other
};

// INVALID_ARGUMENT where the number of ranks that were started is not the job's.
Result<TrainContext> LoadTrainContext(const TrainArgs& args, const Getenv& env);

}  // namespace mft
