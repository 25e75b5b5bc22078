// SPDX-License-Identifier: Apache-2.0
// Trainings that Slurm runs: handed over, looked for in its queue, told to stop. Its programs may
// wait for a controller that is busy or down, so they run on a thread of their own, one after the
// other; what they answer comes back as commands.
#include <algorithm>

#include <spdlog/spdlog.h>

#include "common/base/processes.h"
#include "common/base/strings.h"
#include "server/control/control_loop_impl.h"
#include "server/exec/attempt_dir.h"

namespace mft::server {

namespace {

constexpr int64_t kMicrosPerMilli = 1'000;
constexpr int64_t kResendMicros = 5'000'000;  // a signal may come before the job has processes

}  // namespace

// The row is committed. The job in Slurm carries the attempt's id in its name: whatever becomes of
// this daemon, sbatch is called once for it, and a listing tells whether that worked.
void ControlLoop::Impl::SubmitToSlurm(RunningAttempt attempt, const AttemptFile& file) {
  const Job& job = state_.jobs.at(attempt.job_id);
  const std::string secret =
      job.file->secret.empty() ? "" : JoinPath(options_.state_dir, job.file->secret);
  SlurmRequest request{.attempt_dir = attempt.dir,
                       .attempt_id = attempt.id,
                       .runner = JoinPath(options_.program_dir, "mft-runner"),
                       .secret_path = PathExists(secret) ? secret : "",
                       .comment = StrCat("mftd job ", job.id, " attempt ", file.attempt),
                       .cuda = file.device == "cuda",
                       .ranks = file.ranks,
                       .ranks_per_node = file.ranks_per_node,
                       .threads = file.threads,
                       .grace_ms = file.grace_ms + options_.kill_margin_ms,
                       .time_limit_ms = file.time_limit_ms,
                       .low_priority = job.file->spec.mftd.priority == "low"};
  attempt.slurm->SubmitBegins();
  running_.emplace(attempt.id, std::move(attempt));
  AskSlurm([this, request = std::move(request)](const std::stop_token& stop) {
    return SlurmSubmittedCommand{.attempt_id = request.attempt_id,
                                 .slurm_job = slurm_.Submit(request, stop)};
  });
}

// A daemon that stops asks nothing more: the next one finds out what came of it.
template <typename Ask>
void ControlLoop::Impl::AskSlurm(Ask ask) {
  slurm_thread_.Push([this, ask = std::move(ask)] {
    const std::stop_token stop = slurm_stop_.get_token();
    if (!stop.stop_requested()) {
      Command answer(ask(stop));
      static_cast<void>(queue_->Push(answer, true));
    }
  });
}

void ControlLoop::Impl::Handle(SlurmSubmittedCommand& command) {
  const auto it = running_.find(command.attempt_id);
  if (it == running_.end()) {
    return;
  }
  RunningAttempt& attempt = it->second;
  attempt.slurm->SubmitEnded(command.slurm_job);
  next_slurm_listing_micros_ = BootNow();
  if (!command.slurm_job.ok()) {
    spdlog::error("job {}: {}", attempt.job_id, command.slurm_job.status().ToString());
    return;
  }
  spdlog::info("job {}: train attempt {} is Slurm job {}",
               attempt.job_id,
               state_.attempts.at(attempt.id).number,
               *command.slurm_job);
  Changes changes(state_, Now());
  changes.EditAttempt(attempt.id).slurm_job = *command.slurm_job;
  // Where this commit fails the id is found again by the job's name.
  static_cast<void>(CommitAndTell(changes));
}

// One listing for all attempts. More often while somebody waits for an end.
void ControlLoop::Impl::ListSlurmJobs() {
  bool any = false, urgent = false;
  for (const auto& [id, attempt] : running_) {
    if (attempt.slurm) {
      any = true;
      urgent = urgent || !attempt.slurm->listed() || state_.attempts.at(id).result.has_value() ||
               state_.jobs.at(attempt.job_id).intent != Intent::kNone;
    }
  }
  const int64_t patience_ms = urgent
                                  ? std::min(options_.slurm_urgent_poll_ms, options_.slurm_poll_ms)
                                  : options_.slurm_poll_ms;
  const int64_t due = std::min(next_slurm_listing_micros_,
                               last_slurm_listing_micros_ + patience_ms * kMicrosPerMilli);
  if (!any || slurm_listing_ || BootNow() < due) {
    return;
  }
  slurm_listing_ = true;
  AskSlurm([this](const std::stop_token& stop) {
    return SlurmListedCommand{.jobs = slurm_.List(stop)};
  });
}

void ControlLoop::Impl::Handle(SlurmListedCommand& command) {
  slurm_listing_ = false;
  last_slurm_listing_micros_ = BootNow();
  next_slurm_listing_micros_ =
      last_slurm_listing_micros_ + options_.slurm_poll_ms * kMicrosPerMilli;
  const bool answered = command.jobs.ok();
  if (answered != slurm_answers_) {
    slurm_answers_ = answered;
    answered ? spdlog::info("Slurm answers again")
             : spdlog::error("Slurm does not answer, its jobs are left as they are: {}",
                             command.jobs.status().ToString());
  }
  Changes changes(state_, Now());
  for (auto& [id, attempt] : running_) {
    if (!attempt.slurm) {
      continue;
    }
    if (!answered) {
      attempt.slurm->ListFailed();
      continue;
    }
    const auto job = command.jobs->find(id);
    attempt.slurm->Listed(job == command.jobs->end() ? std::nullopt : std::optional(job->second),
                          BootNow());
    NoteSlurmJob(attempt, changes);
  }
  // What could not be committed is noted again with the next listing.
  static_cast<void>(CommitAndTell(changes));
}

// The job's id, and for people where a job that starts has got to. Slurm's reasons come and go:
// only beginning to wait and beginning to run are events.
void ControlLoop::Impl::NoteSlurmJob(const RunningAttempt& attempt, Changes& changes) {
  const SlurmJob& slurm = attempt.slurm->job();
  if (!slurm.id.empty() && state_.attempts.at(attempt.id).slurm_job != slurm.id) {
    changes.EditAttempt(attempt.id).slurm_job = slurm.id;
  }
  const Job& job = state_.jobs.at(attempt.job_id);
  if (job.state != JobState::kStarting || !attempt.slurm->listed() ||
      LifeOf(slurm.state) == SlurmLife::kOver) {
    return;
  }
  const bool waiting = attempt.slurm->waiting();
  const bool known = !slurm.reason.empty() && slurm.reason != "None";  // not before Slurm looked
  const std::string_view reason = waiting ? reason::kWaitingForDevices : reason::kStartingWorkers;
  const std::string message =
      waiting
          ? StrCat("waits in Slurm as job ", slurm.id, known ? StrCat(" (", slurm.reason, ")") : "")
          : StrCat("Slurm job ", slurm.id, " runs on ", slurm.node);
  if (job.message == message) {
    return;
  }
  if (waiting && job.reason == reason) {
    changes.EditJob(job.id).message = message;
  } else {
    changes.Explain(changes.EditJob(job.id), reason, message);
  }
}

// Over in Slurm and its lock free: dead. A runner that Slurm starts late finds the attempt closed.
void ControlLoop::Impl::CheckSlurm(RunningAttempt& attempt) {
  const int64_t forget = options_.slurm_forget_ms * kMicrosPerMilli;
  if (attempt.dead || !attempt.slurm->Over(BootNow(), forget) || !attempt.slurm->TakeNews()) {
    return;
  }
  const Result<bool> lives = AttemptLivesElseClose(attempt.dir);
  if (!lives.ok()) {
    spdlog::error("job {}: {}", attempt.job_id, lives.status().ToString());
  }
  attempt.dead = lives.ok() && !*lives;
}

// Again and again until it is over: Slurm may lose a signal on its way to the node, and a runner
// takes repeats for one.
void ControlLoop::Impl::StopInSlurm(RunningAttempt& attempt, StopAction action) {
  const SlurmJob& job = attempt.slurm->job();
  if (state_.jobs.at(attempt.job_id).intent == Intent::kNone || attempt.signalling ||
      job.id.empty()) {
    return;
  }
  if (LifeOf(job.state) == SlurmLife::kOver) {
    // Slurm signals it no more. On this node we can; on another one only its lock will tell.
    KillAttemptProcesses(attempt.id);
    return;
  }
  const SlurmSignal signal = attempt.slurm->waiting()      ? SlurmSignal::kDequeue
                             : action == StopAction::kKill ? SlurmSignal::kKill
                                                           : SlurmSignal::kTerminate;
  if (attempt.last_signal == signal && BootNow() < attempt.next_signal_micros) {
    return;
  }
  attempt.signalling = true;
  attempt.last_signal = signal;
  AskSlurm([this, signal, id = attempt.id, job_id = job.id](const std::stop_token& stop) {
    return SlurmSignalledCommand{
        .attempt_id = id, .signal = signal, .status = slurm_.Signal(signal, id, job_id, stop)};
  });
}

void ControlLoop::Impl::Handle(SlurmSignalledCommand& command) {
  const auto it = running_.find(command.attempt_id);
  if (it == running_.end()) {
    return;
  }
  RunningAttempt& attempt = it->second;
  attempt.signalling = false;
  attempt.next_signal_micros = BootNow() + kResendMicros;
  if (!command.status.ok()) {
    spdlog::warn("job {}: {}", attempt.job_id, command.status.ToString());
    return;
  }
  if (command.signal == SlurmSignal::kTerminate &&
      state_.attempts.at(attempt.id).stop_requested_boot_micros == 0) {
    Changes changes(state_, Now());
    changes.EditAttempt(attempt.id).stop_requested_boot_micros = BootNow();
    static_cast<void>(CommitAndTell(changes));
  }
}

}  // namespace mft::server
