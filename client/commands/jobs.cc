// SPDX-License-Identifier: Apache-2.0
// ls, describe, why, cancel, checkpoints.
#include <cstdio>
#include <vector>

#include "client/commands/commands.h"
#include "client/render/event_line.h"
#include "client/render/job_text.h"
#include "common/base/strings.h"

namespace mft::client {

namespace {
constexpr int kPageSize = 1000;

Result<v1::ListJobsResponse> ListAll(Connection& connection) {
  v1::ListJobsResponse all;
  v1::ListJobsRequest request;
  request.set_page_size(kPageSize);
  do {
    v1::ListJobsResponse page;
    MFT_RETURN_IF_ERROR(
        connection.Call(connection.jobs(), &v1::JobService::Stub::ListJobs, request, page));
    all.mutable_jobs()->MergeFrom(page.jobs());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return all;
}

Result<int> List(Connection& connection, bool json) {
  MFT_ASSIGN_OR_RETURN(const v1::ListJobsResponse jobs, ListAll(connection));
  if (json) {
    PrintJson(jobs);
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {
      {"JOB", "NAME", "STATE", "REASON", "STEP", "LOSS", "CREATED"}};
  for (const v1::Job& job : jobs.jobs()) {
    const v1::JobProgress& progress = job.progress();
    rows.push_back({job.id(),
                    Printable(job.name(), 30),
                    v1::JobState_Name(job.state()),
                    job.reason(),
                    StrCat(progress.step(), "/", progress.max_steps()),
                    progress.has_train_loss() ? FormatFixed(progress.train_loss(), 3) : "-",
                    FormatTime(job.create_time(), job.has_create_time())});
  }
  std::printf("%s", FormatTable(rows).c_str());
  return 0;
}

Result<v1::Job> Get(Connection& connection, const std::string& id) {
  v1::GetJobRequest request;
  request.set_job_id(id);
  v1::Job job;
  MFT_RETURN_IF_ERROR(
      connection.Call(connection.jobs(), &v1::JobService::Stub::GetJob, request, job));
  return job;
}

Result<int> Cancel(Connection& connection, const std::string& id, bool now, bool json) {
  v1::CancelJobRequest request;
  request.set_job_id(id);
  request.set_now(now);
  v1::Job job;
  MFT_RETURN_IF_ERROR(
      connection.Call(connection.jobs(), &v1::JobService::Stub::CancelJob, request, job));
  if (json) {
    PrintJson(job);
  } else {
    std::printf("%s %s\n", job.id().c_str(), v1::JobState_Name(job.state()).c_str());
  }
  return 0;
}

Result<int> Checkpoints(Connection& connection, const std::string& id, bool json) {
  v1::ListCheckpointsRequest request;
  request.set_job_id(id);
  v1::ListCheckpointsResponse response;
  MFT_RETURN_IF_ERROR(connection.Call(
      connection.jobs(), &v1::JobService::Stub::ListCheckpoints, request, response));
  if (json) {
    PrintJson(response);
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"STEP", "SIZE", "CREATED", "PATH"}};
  for (const v1::Checkpoint& checkpoint : response.checkpoints()) {
    rows.push_back({std::to_string(checkpoint.step()),
                    FormatBytes(checkpoint.size_bytes()),
                    FormatTime(checkpoint.create_time(), checkpoint.has_create_time()),
                    checkpoint.path()});
  }
  std::printf("%s", FormatTable(rows).c_str());
  return 0;
}

// A subcommand whose one argument is a job.
CLI::App* AddJobCommand(CLI::App& app, const char* name, const char* help, std::string& job) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("JOB", job, "job id")->required();
  return command;
}
}  // namespace

void AddList(CLI::App& app, Context& context) {
  app.add_subcommand("ls", "list jobs, newest first")->callback([&context] {
    context.Run([&](Connection& connection) { return List(connection, context.json()); });
  });
}

void AddDescribe(CLI::App& app, Context& context) {
  const auto job = std::make_shared<std::string>();
  AddJobCommand(app, "describe", "everything about one job", *job)->callback([job, &context] {
    context.Run([&](Connection& connection) -> Result<int> {
      MFT_ASSIGN_OR_RETURN(const v1::Job found, Get(connection, *job));
      if (context.json()) {
        PrintJson(found);
      } else {
        std::printf("%s", FormatJob(found).c_str());
      }
      return 0;
    });
  });
  AddJobCommand(app, "why", "the one root cause of a job's state, and what to do next", *job)
      ->callback([job, &context] {
        context.Run([&](Connection& connection) -> Result<int> {
          MFT_ASSIGN_OR_RETURN(const v1::Job found, Get(connection, *job));
          std::printf("%s", FormatWhy(found).c_str());
          return 0;
        });
      });
}

void AddCancel(CLI::App& app, Context& context) {
  const auto job = std::make_shared<std::string>();
  const auto now = std::make_shared<bool>(false);
  CLI::App* command =
      AddJobCommand(app, "cancel", "stop a job; it writes a checkpoint first", *job);
  command->add_flag("--now", *now, "without a checkpoint");
  command->callback([job, now, &context] {
    context.Run(
        [&](Connection& connection) { return Cancel(connection, *job, *now, context.json()); });
  });
}

void AddCheckpoints(CLI::App& app, Context& context) {
  const auto job = std::make_shared<std::string>();
  AddJobCommand(app, "checkpoints", "list a job's checkpoints", *job)->callback([job, &context] {
    context.Run(
        [&](Connection& connection) { return Checkpoints(connection, *job, context.json()); });
  });
}

void AddMissing(CLI::App& app, Context& context) {
  for (const char* name :
       {"watch", "pause", "resume", "delete", "export", "doctor", "completion"}) {
    CLI::App* command = app.add_subcommand(name, "not in this version");
    command->allow_extras();
    command->callback([name, &context] {
      context.RunLocal([name]() -> Result<int> {
        return Unimplemented(StrCat("`mftctl ", name, "` is not in this version"));
      });
    });
  }
}

}  // namespace mft::client
