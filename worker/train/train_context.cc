// SPDX-License-Identifier: Apache-2.0
#include "worker/train/train_context.h"

#include <algorithm>
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

// `ranks` of the job. Whoever starts ranks by himself need not say so in the job file too.
Status CheckRanks(const World& world, int64_t ranks, bool stand_alone) {
  if (world.size == ranks || (stand_alone && ranks == 1)) {
    return Status::Ok();
  }
  return InvalidArgument(StrCat("the job has ",
                                ranks,
                                ranks == 1 ? " rank" : " ranks",
                                " (mftd.ranks), and WORLD_SIZE says that ",
                                world.size,
                                " were started"));
}

int DefaultThreads(const JobSpec& spec, const World& world) {
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return spec.mftd.threads > 0 ? static_cast<int>(spec.mftd.threads)
                               : std::max(1, cores / world.local_size);
}
}  // namespace

Result<TrainContext> LoadTrainContext(const TrainArgs& args, const Getenv& env) {
  TrainContext context;
  const bool yaml = args.job.ends_with(".yaml") || args.job.ends_with(".yml");
  MFT_ASSIGN_OR_RETURN(context.job, yaml ? ReadYamlJob(args.job) : ReadJobFile(args.job));
  context.attempt_dir = args.attempt_dir;
  context.data_cache = args.data_cache;
  MFT_ASSIGN_OR_RETURN(context.world, ReadWorld(env));
  context.threads = DefaultThreads(context.job.spec, context.world);
  context.attempt_id = env("MFT_ATTEMPT").value_or("");
  int64_t ranks = context.job.spec.mftd.ranks;
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
    ranks = attempt.ranks;
    context.device = attempt.device;
  }
  context.meeting_token = context.attempt_id;
  if (context.attempt_id.empty()) {
    context.attempt_id = RandomHex(8);  // each rank its own; only rank 0 uses it
    context.meeting_token = StrCat(context.world.run_id, " ", context.job.spec.run_dir);
  }
  if (args.attempt_dir.empty()) {
    MFT_RETURN_IF_ERROR(CheckMeetingPlace(context.world));
  } else {
    context.rendezvous_file = JoinPath(args.attempt_dir, "rendezvous.json");
  }
  MFT_RETURN_IF_ERROR(CheckRanks(context.world, ranks, args.attempt_dir.empty()));
  context.job.spec.mftd.ranks = context.world.size;
  if (context.data_cache.empty()) {
    return InvalidArgument(
        "no token cache: pass --data-cache DIR (made by `mft-data prepare --config JOB --out "
        "DIR`)");
  }
  return context;
}

}  // namespace mft
