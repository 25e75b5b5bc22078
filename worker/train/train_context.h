// SPDX-License-Identifier: Apache-2.0
// What a rank is to do, from its command line, its files and torchrun's environment variables.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "common/base/status.h"
#include "common/config/job_file.h"

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
  int threads = 1;
  std::string device = "auto";  // auto | cuda | cpu
};

// The environment, as a function: tests pass their own.
using Getenv = std::function<std::optional<std::string>(const std::string& name)>;
std::optional<std::string> ProcessGetenv(const std::string& name);

// UNIMPLEMENTED for what this build has no variant of: several ranks.
Result<TrainContext> LoadTrainContext(const TrainArgs& args, const Getenv& env);

}  // namespace mft
