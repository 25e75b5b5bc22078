// SPDX-License-Identifier: Apache-2.0
// logs and events.
#include <cstdio>
#include <deque>
#include <thread>

#include "client/commands/commands.h"
#include "client/render/event_line.h"
#include "client/watch_follower.h"
#include "common/base/strings.h"

namespace mft::client {

namespace {
struct LogFlags {
  std::string job;
  bool follow = false;
  int rank = -1;
  int64_t tail = -1;
  int64_t after = 0;
};

Result<v1::Job> Get(Connection& connection, const std::string& id) {
  v1::GetJobRequest request;
  request.set_job_id(id);
  v1::Job job;
  MFT_RETURN_IF_ERROR(
      connection.Call(connection.jobs(), &v1::JobService::Stub::GetJob, request, job));
  return job;
}

Result<int> EndOf(FollowEnd end, const std::string& why) {
  if (end == FollowEnd::kLost) {
    std::fprintf(stderr, "mftctl: error: stream lost: %s\n", why.c_str());
    return kExitStreamLost;
  }
  return 0;
}

// Lines up to now, the last `tail` of them, then live ones.
class LinePrinter {
 public:
  LinePrinter(int64_t tail, int64_t history_end) : tail_(tail), history_end_(history_end) {}

  void OnEvent(const v1::JobEvent& event) {
    const std::string line = formatter_.Line(event);
    if (!line.empty()) {
      if (tail_ >= 0 && event.sequence() <= history_end_) {
        held_.push_back(line);
        if (static_cast<int64_t>(held_.size()) > tail_) {
          held_.pop_front();
        }
      } else {
        Flush();
        Print(line);
      }
    }
    if (event.sequence() >= history_end_) {
      Flush();
    }
  }

 private:
  void Flush() {
    for (const std::string& line : held_) {
      Print(line);
    }
    held_.clear();
  }
  static void Print(const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

  int64_t tail_, history_end_;
  EventFormatter formatter_;
  std::deque<std::string> held_;
};

Result<int> Follow(Connection& connection,
                   const LogFlags& flags,
                   const v1::Job& job,
                   const WatchFollower::OnEvent& on_event) {
  if (!flags.follow && flags.after >= job.last_sequence()) {
    return 0;
  }
  std::string why;
  WatchFollower follower(
      connection,
      flags.job,
      {.after_sequence = flags.after, .until_sequence = flags.follow ? 0 : job.last_sequence()});
  MFT_ASSIGN_OR_RETURN(const FollowEnd end, follower.Run(on_event, why));
  return EndOf(end, why);
}

Result<int> Logs(Connection& connection, const LogFlags& flags) {
  MFT_ASSIGN_OR_RETURN(const v1::Job job, Get(connection, flags.job));
  LinePrinter printer(flags.tail, job.last_sequence());
  return Follow(connection, flags, job, [&](const v1::JobEvent& event) { printer.OnEvent(event); });
}

// A rank's own output, by attempt and offset; moves on to the next attempt.
Result<int> RankLog(Connection& connection, const LogFlags& flags) {
  v1::ReadLogsRequest request;
  request.set_job_id(flags.job);
  request.set_rank(flags.rank);
  request.set_follow(flags.follow);
  request.set_tail_lines(std::max<int64_t>(flags.tail, 0));
  while (true) {
    grpc::ClientContext context;
    const auto reader = connection.jobs().ReadLogs(&context, request);
    v1::ReadLogsResponse chunk;
    while (reader->Read(&chunk)) {
      std::fwrite(chunk.data().data(), 1, chunk.data().size(), stdout);
      std::fflush(stdout);
      request.set_attempt(chunk.attempt());
      request.set_offset(chunk.offset() + static_cast<int64_t>(chunk.data().size()));
      request.set_tail_lines(0);
    }
    const grpc::Status status = reader->Finish();
    const bool away = status.error_code() == grpc::StatusCode::UNAVAILABLE;
    if (!status.ok() && !(away && flags.follow)) {
      return connection.Convert(status);
    }
    auto job = Get(connection, flags.job);
    if (!flags.follow || (job.ok() && !away && (job->has_end_time() || job->attempt() == 0))) {
      return 0;
    }
    if (job.ok() && job->attempt() > request.attempt()) {
      request.set_attempt(job->attempt());
      request.set_offset(0);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

Result<int> Events(Connection& connection, const LogFlags& flags, bool json) {
  MFT_ASSIGN_OR_RETURN(const v1::Job job, Get(connection, flags.job));
  return Follow(connection, flags, job, [json](const v1::JobEvent& event) {
    if (json) {
      PrintJson(event);
    } else {
      std::printf("%lld %s %s\n",
                  static_cast<long long>(event.sequence()),
                  FormatTime(event.time(), event.has_time()).c_str(),
                  event.ShortDebugString().c_str());
      std::fflush(stdout);
    }
  });
}
}  // namespace

void AddLogs(CLI::App& app, Context& context) {
  const auto flags = std::make_shared<LogFlags>();
  CLI::App* command = app.add_subcommand("logs", "readable metric lines and messages");
  command->add_option("JOB", flags->job, "job id")->required();
  command->add_flag(
      "-f,--follow", flags->follow, "follow until the job ends; survives daemon restarts");
  command->add_option("--rank", flags->rank, "a rank's own output instead")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--tail", flags->tail, "only the last N lines of what is there")
      ->check(CLI::NonNegativeNumber);
  command->callback([flags, &context] {
    context.Run([&](Connection& connection) {
      return flags->rank >= 0 ? RankLog(connection, *flags) : Logs(connection, *flags);
    });
  });
}

void AddEvents(CLI::App& app, Context& context) {
  const auto flags = std::make_shared<LogFlags>();
  CLI::App* command = app.add_subcommand("events", "the raw event stream");
  command->add_option("JOB", flags->job, "job id")->required();
  command->add_flag("-f,--follow", flags->follow, "follow until the job ends");
  command->add_option("--after", flags->after, "only events after this sequence")
      ->check(CLI::NonNegativeNumber);
  command->callback([flags, &context] {
    context.Run([&](Connection& connection) { return Events(connection, *flags, context.json()); });
  });
}

}  // namespace mft::client
