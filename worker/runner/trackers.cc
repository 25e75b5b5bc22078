// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/trackers.h"

#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "worker/runner/child_process.h"
#include "worker/runner/rank_log.h"

namespace mft::runner {

namespace {

constexpr int64_t kSecond = 1'000'000;
constexpr int kMaxDoublings = 6;     // of the second before a tracker is started again
constexpr int kExitInvalid = 3;      // of mft-track: trying again cannot help
constexpr int kExitNoProgram = 127;  // of env: there is no such interpreter
constexpr std::chrono::seconds kCheckPatience(60);
constexpr std::chrono::milliseconds kCheckPoll(2);
constexpr std::string_view kErrorMark = "mft-track: error: ";

std::string HowItEnded(int wait_status) {
  return WIFSIGNALED(wait_status) ? StrCat("was ended by signal ",
                                           WTERMSIG(wait_status),
                                           " (",
                                           strsignal(WTERMSIG(wait_status)),
                                           ")")
                                  : StrCat("exited with ", WEXITSTATUS(wait_status));
}

// mft-track's own last words where it had any: they begin with the service.
std::string LastWords(const std::string& service, const std::string& log_path, int wait_status) {
  const std::string line = LastLogLine(log_path);
  const size_t mark = line.find(kErrorMark);
  if (WIFEXITED(wait_status) && mark != std::string::npos) {
    return line.substr(mark + kErrorMark.size());
  }
  const std::string ended = StrCat(service, ": mft-track ", HowItEnded(wait_status));
  return line.empty() ? ended : StrCat(ended, "; its log ends with: ", line);
}

// Blocks. Nobody else reaps meanwhile.
Result<int> WaitFor(pid_t pid) {
  const auto give_up = std::chrono::steady_clock::now() + kCheckPatience;
  int wait_status = 0;
  while (waitpid(pid, &wait_status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > give_up) {
      kill(pid, SIGKILL);
      waitpid(pid, &wait_status, 0);
      return Status(Code::kDeadlineExceeded,
                    "TRACKER_UNAVAILABLE",
                    StrCat("took longer than ", kCheckPatience.count(), " s"));
    }
    std::this_thread::sleep_for(kCheckPoll);
  }
  return wait_status;
}

}  // namespace

Trackers::Trackers(TrackerOptions options, Tell tell)
    : options_(std::move(options)), tell_(std::move(tell)) {
  for (const std::string& service : options_.services) {
    trackers_.push_back(
        {.service = service,
         .log_path = JoinPath(options_.attempt_dir, StrCat("track-", service, ".log")),
         .start_at_micros = 0});
  }
}

Result<pid_t> Trackers::Start(const Tracker& tracker, std::string_view action) const {
  return StartChild({.arguments = {"/usr/bin/env",
                                   options_.python,
                                   JoinPath(options_.bin_dir, "mft-track"),
                                   std::string(action),
                                   tracker.service,
                                   "--job",
                                   AbsolutePath(JoinPath(options_.attempt_dir, "../../job.json")),
                                   "--attempt-dir",
                                   options_.attempt_dir},
                     .variables = options_.variables,
                     .log_path = tracker.log_path,
                     .stdin_fd = options_.secret_fd});
}

Status Trackers::Check() {
  for (const Tracker& tracker : trackers_) {
    MFT_ASSIGN_OR_RETURN(const pid_t pid, Start(tracker, "check"));
    const auto wait_status = WaitFor(pid);
    if (!wait_status.ok()) {
      return wait_status.status().WithContext(
          StrCat("looking for the client of ", tracker.service));
    }
    if (*wait_status == 0) {
      continue;
    }
    const bool no_python = WIFEXITED(*wait_status) && WEXITSTATUS(*wait_status) == kExitNoProgram;
    return {Code::kInvalidArgument,
            "TRACKER_UNAVAILABLE",
            no_python ? StrCat(tracker.service,
                               ": there is no Python interpreter ",
                               options_.python,
                               " on this node (tracker_python of the daemon's configuration)")
                      : LastWords(tracker.service, tracker.log_path, *wait_status)};
  }
  return Status::Ok();
}

void Trackers::StartDue(int64_t now_micros) {
  for (Tracker& tracker : trackers_) {
    if (tracker.pid > 0 || !tracker.start_at_micros || now_micros < *tracker.start_at_micros) {
      continue;
    }
    const auto pid = Start(tracker, "run");
    if (!pid.ok()) {
      Failed(tracker, StrCat(tracker.service, ": ", pid.status().message()), now_micros);
      continue;
    }
    tracker.pid = *pid;
    LogInfo(StrCat("the tracker of ", tracker.service, " is process ", *pid));
  }
}

std::optional<int64_t> Trackers::Deadline() const {
  std::optional<int64_t> deadline;
  for (const Tracker& tracker : trackers_) {
    if (tracker.pid < 0 && tracker.start_at_micros) {
      deadline = std::min(deadline.value_or(*tracker.start_at_micros), *tracker.start_at_micros);
    }
  }
  return deadline;
}

bool Trackers::Ended(pid_t pid, int wait_status, int64_t now_micros) {
  const auto tracker = std::ranges::find(trackers_, pid, &Tracker::pid);
  if (tracker == trackers_.end()) {
    return false;
  }
  tracker->pid = -1;
  LogInfo(StrCat("the tracker of ", tracker->service, " ", HowItEnded(wait_status)));
  if (finishing_ && wait_status == 0) {
    tracker->start_at_micros.reset();
    return true;
  }
  const std::string why = LastWords(tracker->service, tracker->log_path, wait_status);
  if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == kExitInvalid) {
    tracker->start_at_micros.reset();
    tell_("warning", StrCat(why, "; this attempt sends nothing more there"));
    return true;
  }
  Failed(*tracker, why, now_micros);
  return true;
}

// People hear of the first failure, the second, the fourth, the eighth...
void Trackers::Failed(Tracker& tracker, const std::string& why, int64_t now_micros) {
  const int64_t delay = kSecond << std::min(tracker.num_failures, kMaxDoublings);
  ++tracker.num_failures;
  if (finishing_) {
    tracker.start_at_micros.reset();
    tell_("warning", StrCat(why, "; not all metrics were sent"));
    return;
  }
  tracker.start_at_micros = now_micros + delay;
  if ((tracker.num_failures & (tracker.num_failures - 1)) == 0) {
    tell_("warning",
          StrCat(why,
                 "; tried again in ",
                 FormatDuration(static_cast<double>(delay) / kSecond),
                 ", the metrics are kept"));
  }
}

void Trackers::Finish() {
  finishing_ = true;
  for (Tracker& tracker : trackers_) {
    tracker.start_at_micros = tracker.start_at_micros ? std::optional<int64_t>(0) : std::nullopt;
  }
  StartDue(0);
  for (const Tracker& tracker : trackers_) {
    if (tracker.pid > 0) {
      kill(tracker.pid, SIGTERM);  // not reaped: it is nobody else's pid
    }
  }
}

int Trackers::num_alive() const {
  return static_cast<int>(
      std::ranges::count_if(trackers_, [](const Tracker& tracker) { return tracker.pid > 0; }));
}

void Trackers::GiveUp() const {
  for (const Tracker& tracker : trackers_) {
    if (tracker.pid > 0) {
      tell_("warning",
            StrCat(tracker.service,
                   ": does not answer in time, not all metrics were sent; see ",
                   tracker.log_path));
    }
  }
}

std::vector<std::string> Trackers::log_paths() const {
  std::vector<std::string> paths;
  for (const Tracker& tracker : trackers_) {
    paths.push_back(tracker.log_path);
  }
  return paths;
}

}  // namespace mft::runner
