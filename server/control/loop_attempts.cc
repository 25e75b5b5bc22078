// SPDX-License-Identifier: Apache-2.0
// The life of attempts: found again, followed, stopped and ended.
#include <algorithm>
#include <csignal>

#include <spdlog/spdlog.h>

#include "common/base/strings.h"
#include "server/control/apply_record.h"
#include "server/control/control_loop_impl.h"
#include "server/exec/adoption.h"
#include "server/exec/attempt_dir.h"

namespace mft::server {

namespace {

constexpr int64_t kSecond = 1'000'000;
constexpr int kEmptyScans = 2;  // see KillAttemptProcesses
constexpr size_t kTickBytes = size_t{4} << 20;
constexpr size_t kJournalBytes = size_t{256} << 10;

StopState StopStateOf(const Job& job, const Attempt& attempt, int64_t margin_ms) {
  // In Slurm an attempt waits before it runs, and Slurm keeps a limit behind the runner's own.
  const bool local = attempt.executor == Executor::kLocal;
  return {.stop_wanted = job.intent != Intent::kNone,
          .kill_wanted = job.intent == Intent::kCancelNow,
          .terminated_micros = attempt.stop_requested_boot_micros,
          .started_micros = attempt.created_boot_micros,
          .grace_ms = attempt.grace_ms,
          .time_limit_ms = local ? attempt.time_limit_ms : 0,
          .margin_ms = margin_ms};
}

}  // namespace

RunningAttempt ControlLoop::Impl::MakeRunning(const Attempt& attempt) const {
  RunningAttempt running;
  running.id = attempt.id;
  running.job_id = attempt.job_id;
  running.kind = attempt.kind;
  running.dir = JoinPath(JobDir(attempt.job_id), AttemptDirName(attempt.kind, attempt.number));
  if (attempt.executor == Executor::kSlurm) {
    running.slurm.emplace(attempt.slurm_job);
  }
  running.journals.emplace_back(running.dir, std::string(kRunnerJournalName), kRunnerRank);
  const int64_t ranks = attempt.kind == AttemptKind::kTrain
                            ? state_.jobs.at(attempt.job_id).file->spec.mftd.ranks
                            : 1;
  for (int rank = 0; rank < ranks; ++rank) {
    running.journals.emplace_back(running.dir, RankJournalName(rank), rank);
  }
  return running;
}

// Before anything is scheduled: every attempt without an end is either alive and followed again, or
// dead and ended in the first turns of the loop.
void ControlLoop::Impl::Adopt(const StoredState& stored) {
  for (const Attempt& attempt : stored.open_attempts) {
    state_.attempts[attempt.id] = attempt;
    RunningAttempt running = MakeRunning(attempt);
    running.adopted = true;
    running.rebooted = !running.slurm && attempt.boot_id != boot_id_;
    if (running.slurm && attempt.boot_id != boot_id_) {
      // It went on while this node was down; the times of its row are of another clock.
      state_.attempts[attempt.id].created_boot_micros = BootNow();
      state_.attempts[attempt.id].stop_requested_boot_micros = 0;
    }
    for (JournalCursor& journal : running.journals) {
      for (const JournalOffset& offset : stored.offsets) {
        if (offset.attempt_id == attempt.id && offset.file == journal.file()) {
          journal.Resume({.offset = offset.offset, .last_seq = offset.seq});
        }
      }
    }
    ++stats_.adopted_attempts;
    spdlog::info("job {}: found {} attempt {} again",
                 attempt.job_id,
                 AttemptKindName(attempt.kind),
                 attempt.number);
    running_.emplace(attempt.id, std::move(running));
  }
}

void ControlLoop::Impl::FollowAttempts() {
  more_to_read_ = false;
  if (running_.empty() || !closed_.ok()) {
    return;
  }
  Changes changes(state_, Now());
  for (auto& [id, attempt] : running_) {
    CheckAlive(attempt, changes);
    ClimbStopLadder(attempt, changes);
  }
  ReadJournals(changes);
  for (auto& [id, attempt] : running_) {
    EndIfOver(attempt, changes);
  }
  const bool committed = CommitAndTell(changes).ok();
  for (auto& [id, attempt] : running_) {
    for (JournalCursor& journal : attempt.journals) {
      committed ? journal.Accept() : journal.Rewind();
    }
  }
  if (committed) {
    std::erase_if(running_,
                  [this](const auto& entry) { return !state_.attempts.contains(entry.first); });
  }
}

void ControlLoop::Impl::CheckAlive(RunningAttempt& attempt, Changes& changes) {
  attempt.slurm ? CheckSlurm(attempt) : CheckLock(attempt, changes);
  attempt.dead = attempt.dead || attempt.rebooted;
  if (attempt.dead && !attempt.gone) {
    attempt.empty_scans = KillAttemptProcesses(attempt.id) == 0 ? attempt.empty_scans + 1 : 0;
    attempt.gone = attempt.empty_scans >= kEmptyScans;
  }
}

// The lock decides; the pidfd only says when to look.
void ControlLoop::Impl::CheckLock(RunningAttempt& attempt, Changes& changes) {
  const Attempt& row = state_.attempts.at(attempt.id);
  if (!attempt.dead && !attempt.rebooted && (!attempt.runner || attempt.runner_exited)) {
    const Result<bool> held = AttemptLockHeld(attempt.dir);
    if (!held.ok()) {
      spdlog::error("job {}: {}", attempt.job_id, held.status().ToString());
      return;
    }
    attempt.dead = !*held;
    if (*held) {
      attempt.runner = OpenRunner(row.id, row.pid, row.pid_start_ticks);
      attempt.runner = attempt.runner ? std::move(attempt.runner) : FindRunner(row.id);
      attempt.runner_exited = false;
    }
    if (*held && attempt.runner && attempt.runner->pid != row.pid) {
      Attempt& edited = changes.EditAttempt(row.id);
      edited.pid = attempt.runner->pid;
      edited.pid_start_ticks = attempt.runner->start_ticks;
    }
  }
}

void ControlLoop::Impl::ClimbStopLadder(RunningAttempt& attempt, Changes& changes) {
  if (attempt.dead) {
    return;
  }
  const Attempt& row = state_.attempts.at(attempt.id);
  const StopState state = StopStateOf(state_.jobs.at(attempt.job_id), row, options_.kill_margin_ms);
  const StopAction action = NextStopAction(state, BootNow());
  if (attempt.slurm) {
    StopInSlurm(attempt, action);
    return;
  }
  switch (action) {
    case StopAction::kNone:
      return;
    case StopAction::kTerminate:
      if (attempt.runner) {
        const Status status = SendSignal(*attempt.runner, SIGTERM);
        if (!status.ok()) {
          spdlog::error("job {}: {}", attempt.job_id, status.ToString());
        }
        changes.EditAttempt(attempt.id).stop_requested_boot_micros = BootNow();
      }
      return;
    case StopAction::kKill:
      KillAttemptProcesses(attempt.id);
      return;
  }
}

// Every journal gets its share, and each turn begins with another one, so that none starves the
// rest.
void ControlLoop::Impl::ReadJournals(Changes& changes) {
  std::vector<std::pair<RunningAttempt*, JournalCursor*>> journals;
  for (auto& [id, attempt] : running_) {
    if (attempt.slurm && attempt.slurm->waiting()) {
      continue;  // thousands may wait, on a file system that is not ours alone
    }
    for (JournalCursor& journal : attempt.journals) {
      journals.emplace_back(&attempt, &journal);
    }
  }
  size_t budget = kTickBytes;
  first_journal_ = journals.empty() ? 0 : (first_journal_ + 1) % journals.size();
  for (size_t i = 0; i < journals.size(); ++i) {
    auto& [attempt, journal] = journals[(first_journal_ + i) % journals.size()];
    const size_t bytes =
        journal->Read(attempt->id, changes, std::min(budget, kJournalBytes), attempt->errors);
    budget -= std::min(budget, bytes);
    stats_.journal_bytes += static_cast<int64_t>(bytes);
    more_to_read_ = more_to_read_ || !journal->at_end();
  }
}

// Last events, result, leases and the job's next state go into one transaction.
void ControlLoop::Impl::EndIfOver(RunningAttempt& attempt, Changes& changes) {
  const auto at_end = [](const JournalCursor& journal) { return journal.at_end(); };
  if (!attempt.gone || !std::all_of(attempt.journals.begin(), attempt.journals.end(), at_end)) {
    return;
  }
  const Attempt& row = changes.EditAttempt(attempt.id);
  AttemptEnd end;
  if (row.result) {
    end = {.kind = AttemptEnd::Kind::kResult, .result = row.result, .detail = ""};
  } else if (!attempt.start_error.empty()) {
    end = {.kind = AttemptEnd::Kind::kStartFailed,
           .result = std::nullopt,
           .detail = attempt.start_error};
  } else if (attempt.slurm) {
    const Result<int64_t> journal = FileSize(JoinPath(attempt.dir, kRunnerJournalName));
    end = attempt.slurm->EndWithoutResult(journal.ok() && *journal > 0,
                                          JoinPath(attempt.dir, "runner.log"));
  } else if (attempt.rebooted) {
    end.kind = AttemptEnd::Kind::kRebooted;
  } else if (attempt.adopted && row.pid == 0 &&
             !PathExists(JoinPath(attempt.dir, kRunnerJournalName))) {
    end.kind = AttemptEnd::Kind::kNeverStarted;
  } else {
    end.detail = StrCat("see ", JoinPath(attempt.dir, "runner.log"));
  }
  EndAttempt(attempt, changes, end);
}

void ControlLoop::Impl::EndAttempt(const RunningAttempt& attempt,
                                   Changes& changes,
                                   const AttemptEnd& end) {
  Attempt& row = changes.EditAttempt(attempt.id);
  Job& job = changes.EditJob(attempt.job_id);
  Verdict verdict = Judge(job, attempt.kind, end);
  if (verdict.state == JobState::kValidated && job.data_cache.empty()) {
    ResultRecord broken{.outcome = "failed", .code = static_cast<int>(Code::kInternal)};
    broken.message = "the preparation ended well but named no token cache";
    verdict = Judge(job,
                    attempt.kind,
                    AttemptEnd{.kind = AttemptEnd::Kind::kResult, .result = broken, .detail = ""});
  }
  if (verdict.reason == reason::kDataCacheGone) {
    job.data_cache.clear();  // the next attempt prepares the data again
  }
  row.ended_micros = Now();
  row.outcome = end.result ? end.result->outcome : "lost";
  stats_.lost_attempts += end.result ? 0 : 1;
  job.retries_used += verdict.uses_retry ? 1 : 0;
  std::string message = verdict.message;
  for (const std::string& error : attempt.errors) {
    if (verdict.state == JobState::kFailed && message.find(error) == std::string::npos) {
      message += StrCat("; ", error);
    }
  }
  if (verdict.state == JobState::kSucceeded) {
    message = StrCat("training is complete: ",
                     job.progress.step,
                     " steps; the results are in ",
                     job.file->spec.run_dir);
  }
  changes.Transition(job, verdict.state, verdict.reason, Printable(message, 4096));
  if (verdict.state == JobState::kRecovering) {
    const int64_t delay =
        RetryDelayMicros(attempt.kind == AttemptKind::kTrain ? job.attempt : job.prepare_attempt,
                         options_.retry_delay_ms * 1000);
    RetryLater(job.id,
               delay,
               StrCat("the next attempt follows in ",
                      FormatDuration(static_cast<double>(delay) / kSecond)));
  }
  if (verdict.state == JobState::kValidated) {
    caches_due_ = true;
  }
  schedule_due_ = true;
  spdlog::info("job {}: {} attempt {} ended: {} ({}): {}",
               job.id,
               AttemptKindName(row.kind),
               row.number,
               JobStateName(job.state),
               verdict.reason,
               message);
}

}  // namespace mft::server
