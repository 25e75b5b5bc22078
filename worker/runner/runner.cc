// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/runner.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/processes.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"
#include "common/journal/build.h"
#include "common/journal/ends.h"
#include "common/journal/writer.h"
#include "worker/runner/attempt_journal.h"
#include "worker/runner/process_setup.h"
#include "worker/runner/rank_command.h"
#include "worker/runner/rank_launcher.h"
#include "worker/runner/rank_log.h"
#include "worker/runner/result.h"
#include "worker/runner/stop_plan.h"
#include "worker/runner/trackers.h"

namespace mft::runner {

namespace {

constexpr int64_t kMicrosPerMilli = 1'000;
constexpr int64_t kSecond = 1'000'000;
constexpr int64_t kScanMicros = 5 * kMicrosPerMilli;
constexpr int64_t kLeftoversMicros = 60 * kSecond;  // then the daemon has to wait for them
constexpr int kEmptyScans = 2;                      // see KillAttemptProcesses
constexpr int64_t kFlushMicros = 30 * kSecond;      // for the trackers, once the ranks have ended
constexpr int64_t kFlushAfterStopMicros = 3 * kSecond;  // behind the grace period: the daemon waits
                                                        // 10 s longer

class Runner {
 public:
  // All references must outlive the object.
  Runner(std::string dir,
         AttemptFile attempt,
         const RunnerOptions& options,
         JournalWriter& journal,
         Wakeup& wakeup,
         const Clock& clock)
      : dir_(std::move(dir)),
        attempt_(std::move(attempt)),
        program_(RankProgram(attempt_.kind)),
        journal_(journal),
        wakeup_(wakeup),
        clock_(clock),
        launcher_(MakeRankLauncher(attempt_, dir_, options.bin_dir)),
        plan_(clock.BoottimeMicros(), attempt_.grace_ms, attempt_.time_limit_ms),
        trackers_(TrackersOf(options),
                  [this](std::string_view level, const std::string& text) { Tell(level, text); }) {}

  // Everything but the result record.
  Result<ResultRecord> Run() {
    const bool train = attempt_.kind == AttemptKind::kTrain;
    if (!train) {
      // Before anybody waits for devices.
      MFT_RETURN_IF_ERROR(trackers_.Check());
    }
    StartRanks();
    while (launcher_->num_alive() > 0) {
      Act(plan_.Next(Now()));
      CheckLogs();
      if (train) {
        trackers_.StartDue(Now());
      }
      const int64_t wake = std::min(
          {plan_.Deadline().value_or(next_log_check_micros_),
           next_log_check_micros_,
           train ? trackers_.Deadline().value_or(next_log_check_micros_) : next_log_check_micros_});
      MFT_RETURN_IF_ERROR(WaitAndHandle(wake));
    }
    if (train) {
      MFT_RETURN_IF_ERROR(Settle());
    }
    MFT_RETURN_IF_ERROR(KillLeftovers());
    return MakeOwnResult();
  }

 private:
  void StartRanks();
  TrackerOptions TrackersOf(const RunnerOptions& options) const;
  void Handle(int signal);
  void Act(StopAction action);
  Status WaitAndHandle(int64_t deadline_micros);
  void Reap();
  void RanksEnded(const std::vector<RankEnd>& ends);
  void RankEnded(const RankEnd& end);
  void RankFailed(int rank, Status why);
  Status Settle();
  Status KillLeftovers();
  ResultRecord MakeOwnResult() const;
  void CheckLogs();

  int64_t Now() const { return clock_.BoottimeMicros(); }
  // For people, in the log and in the job's events.
  void Tell(std::string_view level, const std::string& text) {
    LogInfo(text);
    LogIfError(journal_.Append(MessageRecord{std::string(level), text}), "journal");
  }

  std::string dir_;
  AttemptFile attempt_;
  std::string program_;
  JournalWriter& journal_;
  Wakeup& wakeup_;
  const Clock& clock_;
  std::unique_ptr<RankLauncher> launcher_;
  StopPlan plan_;
  Trackers trackers_;
  std::vector<RankExit> ranks_;
  int first_failed_ = -1;
  Status first_failure_;
  bool told_kill_ = false;
  int64_t next_log_check_micros_ = 0;
};

TrackerOptions Runner::TrackersOf(const RunnerOptions& options) const {
  return {.services = attempt_.trackers,
          .python = attempt_.tracker_python,
          .bin_dir = options.bin_dir,
          .attempt_dir = dir_,
          .variables = {{std::string(kAttemptVariable), attempt_.attempt_id},
                        {"CUDA_VISIBLE_DEVICES", Join(attempt_.gpu_uuids, ",")}},
          .secret_fd = options.secret_fd};
}

void Runner::StartRanks() {
  const int count = attempt_.kind == AttemptKind::kTrain ? attempt_.ranks : 1;
  for (int rank = 0; rank < count; ++rank) {
    ranks_.push_back({.rank = rank, .exit_code = -1, .signal = 0, .final = std::nullopt});
  }
  for (const RankEnd& unstarted : launcher_->Start()) {
    RankFailed(unstarted.rank, unstarted.why);
  }
}

void Runner::Handle(int signal) {
  if (signal == SIGUSR1 && plan_.cause() == StopCause::kNone) {
    LogInfo("SIGUSR1: the ranks write a checkpoint and go on");
    launcher_->Signal(SIGUSR1);
  } else if (signal == SIGTERM || signal == SIGINT) {
    plan_.Request(Now());
  }
}

void Runner::Act(StopAction action) {
  switch (action) {
    case StopAction::kNone:
      return;
    case StopAction::kTerminate:
      if (plan_.cause() != StopCause::kRankFailed) {
        Tell("info",
             StrCat(plan_.cause() == StopCause::kTimeLimit ? "the time limit ran out"
                                                           : "asked to stop",
                    ": the ranks write a checkpoint and stop, within ",
                    FormatDuration(static_cast<double>(attempt_.grace_ms) / 1e3)));
      }
      launcher_->Signal(SIGTERM);
      return;
    case StopAction::kKill:
      if (!std::exchange(told_kill_, true)) {
        Tell("warning",
             StrCat(launcher_->num_alive(), " of ", ranks_.size(), " ranks did not stop: killing"));
      }
      launcher_->Kill(Now());
      return;
  }
}

Status Runner::WaitAndHandle(int64_t deadline_micros) {
  MFT_ASSIGN_OR_RETURN(const std::vector<int> signals,
                       wakeup_.Wait(deadline_micros, launcher_->fd()));
  for (const int signal : signals) {
    Handle(signal);
  }
  RanksEnded(launcher_->Heard());
  Reap();
  return Status::Ok();
}

// Ranks, and what they left behind: as their subreaper we inherit it.
void Runner::Reap() {
  int wait_status = 0;
  for (pid_t pid = 0; (pid = waitpid(-1, &wait_status, WNOHANG)) > 0;) {
    if (!trackers_.Ended(pid, wait_status, Now())) {
      RanksEnded(launcher_->ChildEnded(pid, wait_status));
    }
  }
}

void Runner::RanksEnded(const std::vector<RankEnd>& ends) {
  for (const RankEnd& end : ends) {
    RankEnded(end);
  }
}

void Runner::RankEnded(const RankEnd& end) {
  RankExit& exit = ranks_[static_cast<size_t>(end.rank)];
  exit.signal = end.signal;
  exit.exit_code = end.exit_code;
  const auto ends = ReadJournalEnds(RankFile(dir_, end.rank, ".jsonl"));
  LogIfError(ends.status(), "reading the journal of a rank that ended");
  if (ends.ok() && ends->last && std::holds_alternative<FinalRecord>(ends->last->body)) {
    exit.final = std::get<FinalRecord>(ends->last->body);
  }
  LogInfo(StrCat("rank ",
                 end.rank,
                 " ended: exit code ",
                 end.exit_code,
                 ", signal ",
                 end.signal,
                 ", ",
                 exit.final ? exit.final->outcome : "no final record"));
  const Status build =
      ends.ok() && ends->header ? CheckBuildOfRank(program_, ends->header->build) : Status::Ok();
  if (!build.ok()) {
    RankFailed(end.rank, build);
  } else if (!EndedWell(exit) && !(plan_.killed() && end.signal == SIGKILL)) {
    RankFailed(end.rank, exit.final ? Status::Ok() : end.why);
  } else if (end.signal != 0 && EndedWell(exit)) {
    Tell("warning",
         StrCat("rank ",
                end.rank,
                " was ended by signal ",
                end.signal,
                " when its work was ",
                exit.final->outcome));
  }
}

void Runner::RankFailed(int rank, Status why) {
  if (first_failed_ < 0 || IsNearerCause(ranks_[static_cast<size_t>(rank)],
                                         ranks_[static_cast<size_t>(first_failed_)])) {
    first_failed_ = rank;
    first_failure_ = std::move(why);
  }
  plan_.RankFailed(Now());
}

// What of the metrics is still under way, and what brought the ranks' last words. A service that
// does not answer delays the result by seconds, the ranks by nothing.
Status Runner::Settle() {
  trackers_.Finish();
  int64_t give_up = Now() + kFlushMicros;
  while (true) {
    if (plan_.cause() == StopCause::kRequested || plan_.cause() == StopCause::kTimeLimit) {
      const int64_t grace_end = std::max(Now(), plan_.Deadline().value_or(0));
      give_up = std::min(give_up, grace_end + kFlushAfterStopMicros);
    }
    const bool settled = trackers_.num_alive() == 0 && !launcher_->settling();
    if (settled || Now() >= give_up) {
      trackers_.GiveUp();
      return Status::Ok();
    }
    MFT_RETURN_IF_ERROR(WaitAndHandle(give_up));
  }
}

// Whatever the ranks started and left: nothing of the attempt may outlive the lock.
Status Runner::KillLeftovers() {
  const int64_t give_up = Now() + kLeftoversMicros;
  for (int empty = 0; empty < kEmptyScans && Now() < give_up;) {
    const int found = KillAttemptProcesses(attempt_.attempt_id, getpid());
    empty = found == 0 ? empty + 1 : 0;
    if (empty < kEmptyScans) {
      MFT_RETURN_IF_ERROR(wakeup_.Wait(Now() + kScanMicros).status());
    }
    Reap();
  }
  return Status::Ok();
}

ResultRecord Runner::MakeOwnResult() const {
  AttemptOutcome outcome{.program = program_,
                         .ranks = ranks_,
                         .first_failed = first_failed_,
                         .first_failure = first_failure_,
                         .last_log_line = "",
                         .cause = plan_.cause(),
                         .killed = plan_.killed(),
                         .grace_ms = attempt_.grace_ms,
                         .time_limit_ms = attempt_.time_limit_ms};
  if (first_failed_ >= 0) {
    outcome.last_log_line = LastLogLine(RankFile(dir_, first_failed_, ".log"));
  }
  return MakeResult(outcome);
}

void Runner::CheckLogs() {
  if (Now() < next_log_check_micros_) {
    return;
  }
  next_log_check_micros_ = Now() + kLogCheckMicros;
  for (const auto& paths : {launcher_->log_paths(), trackers_.log_paths()}) {
    for (const std::string& path : paths) {
      if (PathExists(path)) {
        LogIfError(LimitLog(path, kLogBytesKept), "limiting a log");
      }
    }
  }
}

}  // namespace

Status RunAttempt(const RunnerOptions& options, const Clock& clock) {
  Wakeup wakeup;
  MFT_RETURN_IF_ERROR(wakeup.Init());
  BecomeRunner();
  const std::string dir = AbsolutePath(options.attempt_dir);
  MFT_ASSIGN_OR_RETURN(UniqueFd lock, HoldLock(JoinPath(dir, "lock"), options.lock_fd));
  lock.release();  // never closed: the lock says that this process lives
  const auto attempt = ReadAttemptFile(JoinPath(dir, "attempt.json"));
  const char* inherited_id = std::getenv(std::string(kAttemptVariable).c_str());
  const std::string unreadable_id = inherited_id == nullptr ? "" : inherited_id;
  MFT_ASSIGN_OR_RETURN(
      const auto journal,
      OpenAttemptJournal(dir, attempt.ok() ? attempt->attempt_id : unreadable_id, clock));
  if (!attempt.ok()) {
    return AppendResult(*journal, FailedResult(attempt.status()), wakeup, clock);
  }
  Runner runner(dir, *attempt, options, *journal, wakeup, clock);
  const auto result = runner.Run();
  return AppendResult(
      *journal, result.ok() ? *result : FailedResult(result.status()), wakeup, clock);
}

}  // namespace mft::runner
