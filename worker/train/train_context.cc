// SPDX-License-Identifier: Apache-2.0
#include "worker/train/train_context.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <thread>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/config/yaml_reader.h"
#include "common/journal/record.h"

namespace mft {

namespace {
Result<JobFile> ReadYamlJob(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  JobSpecResult result = ParseJobYaml(text);
  if (!result.violations.empty()) {
    return Status(
        Code::kInvalidArgument, "VALIDATION_FAILED", FormatViolations(result.violations, path));
  }
  JobFile file;
  file.spec = std::move(result.spec);
  MFT_RETURN_IF_ERROR(MakePathsAbsolute(file.spec, AbsolutePath(".")));
  return file;
}

Result<int> EnvInt(const Getenv& env, const std::string& name, int otherwise) {
  const auto text = env(name);
  if (!text.has_value() || text->empty()) {
    return otherwise;
  }
  int value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value < 0) {
    return InvalidArgument(
        StrCat(name, " must be a number from 0, not \"", Printable(*text, 80), "\""));
  }
  return value;
}

Status CheckWorld(const Getenv& env, int64_t ranks) {
  MFT_ASSIGN_OR_RETURN(const int world_size, EnvInt(env, "WORLD_SIZE", 1));
  MFT_ASSIGN_OR_RETURN(const int rank, EnvInt(env, "RANK", 0));
  if (world_size > 1 || ranks > 1) {
    return Unimplemented(StrCat(
        "WORLD_SIZE ", world_size, ", mftd.ranks ", ranks, ": this build trains on one rank only"));
  }
  if (rank != 0) {
    return InvalidArgument(StrCat("RANK ", rank, " with WORLD_SIZE ", world_size));
  }
  return Status::Ok();
}

int DefaultThreads(const JobSpec& spec) {
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return spec.mftd.threads > 0 ? static_cast<int>(spec.mftd.threads) : cores;
}
}  // namespace

std::optional<std::string> ProcessGetenv(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

Result<TrainContext> LoadTrainContext(const TrainArgs& args, const Getenv& env) {
  TrainContext context;
  const bool yaml = args.job.ends_with(".yaml") || args.job.ends_with(".yml");
  MFT_ASSIGN_OR_RETURN(context.job, yaml ? ReadYamlJob(args.job) : ReadJobFile(args.job));
  context.attempt_dir = args.attempt_dir;
  context.data_cache = args.data_cache;
  context.threads = DefaultThreads(context.job.spec);
  context.attempt_id = env("MFT_ATTEMPT").value_or("");
  context.device = context.job.spec.mftd.device;
  if (!args.attempt_dir.empty()) {
    MFT_ASSIGN_OR_RETURN(const AttemptFile attempt,
                         ReadAttemptFile(JoinPath(args.attempt_dir, "attempt.json")));
    if (!context.attempt_id.empty() && context.attempt_id != attempt.attempt_id) {
      return FailedPrecondition(StrCat("MFT_ATTEMPT is ",
                                       context.attempt_id,
                                       ", and ",
                                       args.attempt_dir,
                                       "/attempt.json is of ",
                                       attempt.attempt_id));
    }
    context.attempt_id = attempt.attempt_id;
    context.attempt = attempt.attempt;
    context.data_cache = args.data_cache.empty() ? attempt.data_cache : args.data_cache;
    context.threads = attempt.threads;
    context.device = attempt.device;
  }
  if (context.attempt_id.empty()) {
    context.attempt_id = RandomHex(8);
  }
  MFT_RETURN_IF_ERROR(CheckWorld(env, context.job.spec.mftd.ranks));
  if (context.data_cache.empty()) {
    return InvalidArgument(
        "no token cache: pass --data-cache DIR (made by `mft-data prepare --config JOB --out "
        "DIR`)");
  }
  return context;
}

}  // namespace mft
