// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <google/protobuf/util/json_util.h>

#include "client/commands/commands.h"
#include "client/render/event_line.h"
#include "client/render/job_text.h"
#include "client/watch_follower.h"
#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/config/yaml_reader.h"

namespace mft::client {

namespace {
constexpr size_t kMaxJobFileBytes = size_t{1} << 20;

struct SubmitFlags {
  std::string file, name, request_id;
  std::vector<std::string> overrides;
  int ranks = 0;
  bool dry_run = false, wait = false;
};

// The key of the file, or the one that mistral-finetune would have found: that of the environment.
std::string WandbKeyOf(const JobSpecResult& parsed) {
  if (parsed.spec.wandb.project.empty() || !parsed.wandb_key.empty()) {
    return parsed.wandb_key;
  }
  const char* key = std::getenv("WANDB_API_KEY");
  return key == nullptr ? "" : key;
}

// The job file, checked here so that violations name its lines; the daemon checks again what its
// node knows.
Status ReadSpec(const SubmitFlags& flags, v1::SubmitJobRequest& request) {
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(flags.file, kMaxJobFileBytes));
  std::vector<std::string> overrides = flags.overrides;
  if (!flags.name.empty()) {
    overrides.push_back("mftd.name=" + flags.name);
  }
  if (flags.ranks > 0) {
    overrides.push_back(StrCat("mftd.ranks=", flags.ranks));
  }
  JobSpecResult parsed = ParseJobYaml(text, overrides);
  for (const std::string& warning : parsed.warnings) {
    PrintWarning(StrCat(flags.file, ": ", warning));
  }
  if (!parsed.violations.empty()) {
    return InvalidArgument(StrCat("the job file is not valid\n",
                                  Trim(FormatViolations(parsed.violations, flags.file))));
  }
  request.set_wandb_api_key(WandbKeyOf(parsed));
  MFT_RETURN_IF_ERROR(MakePathsAbsolute(parsed.spec, std::filesystem::current_path().string()));
  const auto converted = google::protobuf::util::JsonStringToMessage(
      DumpJson(JobSpecToJson(parsed.spec)), request.mutable_spec());
  return converted.ok() ? Status::Ok() : Internal(converted.ToString());
}

int ExitCodeOf(const v1::Job& job) {
  switch (job.state()) {
    case v1::SUCCEEDED:
      return 0;
    case v1::CANCELLED:
      return kExitJobCancelled;
    default:
      return job.reason().starts_with("VALIDATION") ? kExitInvalid : kExitJobFailed;
  }
}

// Follows on stderr; stdout holds the job id alone.
Result<int> Wait(Connection& connection, const std::string& job_id) {
  EventFormatter formatter;
  std::string why;
  WatchFollower follower(connection, job_id, {});
  MFT_ASSIGN_OR_RETURN(const FollowEnd end,
                       follower.Run(
                           [&](const v1::JobEvent& event) {
                             const std::string line = formatter.Line(event);
                             if (!line.empty()) {
                               std::fprintf(stderr, "%s\n", line.c_str());
                             }
                           },
                           why));
  if (end == FollowEnd::kLost) {
    std::fprintf(stderr,
                 "mftctl: error: %s; the job goes on: mftctl logs %s -f\n",
                 why.c_str(),
                 job_id.c_str());
    return kExitStreamLost;
  }
  v1::GetJobRequest request;
  request.set_job_id(job_id);
  v1::Job job;
  MFT_RETURN_IF_ERROR(
      connection.Call(connection.jobs(), &v1::JobService::Stub::GetJob, request, job));
  if (job.state() != v1::SUCCEEDED) {
    std::fprintf(stderr, "mftctl: job %s: %s", job_id.c_str(), FormatWhy(job).c_str());
  }
  return ExitCodeOf(job);
}

Result<int> Submit(Connection& connection, const SubmitFlags& flags, bool json) {
  v1::SubmitJobRequest request;
  MFT_RETURN_IF_ERROR(ReadSpec(flags, request));
  // Without it a retry after a lost reply would queue the job twice.
  request.set_request_id(flags.request_id.empty() ? RandomUuid4() : flags.request_id);
  request.set_validate_only(flags.dry_run);
  v1::SubmitJobResponse response;
  MFT_RETURN_IF_ERROR(
      connection.Call(connection.jobs(), &v1::JobService::Stub::SubmitJob, request, response));
  for (const std::string& warning : response.warnings()) {
    PrintWarning(warning);
  }
  if (json) {
    PrintJson(response);
  } else if (flags.dry_run) {
    std::printf(
        "%s", FormatEstimate(response.job().estimate(), response.job().spec().max_steps()).c_str());
  } else {
    std::printf("%s\n", response.job().id().c_str());
  }
  std::fflush(stdout);
  return flags.wait && !flags.dry_run ? Wait(connection, response.job().id()) : Result<int>(0);
}
}  // namespace

void AddSubmit(CLI::App& app, Context& context) {
  const auto flags = std::make_shared<SubmitFlags>();
  CLI::App* command = app.add_subcommand("submit", "queue a job; prints its id");
  command->add_option("JOB.yaml", flags->file, "job file")->required();
  command->add_option("--set", flags->overrides, "KEY=VALUE after the file, e.g. optim.lr=1e-4")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--name", flags->name, "name of the job");
  command->add_option("--ranks", flags->ranks, "worker processes")->check(CLI::PositiveNumber);
  command->add_option("--request-id", flags->request_id, "makes a repeated submit the same job");
  command->add_flag("--dry-run", flags->dry_run, "check and estimate only");
  command->add_flag("--wait", flags->wait, "follow the job and exit with its class");
  command->callback([flags, &context] {
    context.Run([&](Connection& connection) { return Submit(connection, *flags, context.json()); });
  });
}

}  // namespace mft::client
