// SPDX-License-Identifier: Apache-2.0
// Which jobs start now, and how an attempt begins.
#include <fcntl.h>

#include <algorithm>

#include <spdlog/spdlog.h>

#include "common/base/ids.h"
#include "common/base/strings.h"
#include "server/control/cache_bound.h"
#include "server/control/control_loop_impl.h"
#include "server/exec/attempt_dir.h"
#include "server/exec/spawner.h"

namespace mft::server {

namespace {

constexpr int64_t kSecond = 1'000'000;
constexpr int64_t kRetryStart = 10 * kSecond;  // after a disk or a GPU lock was in the way
constexpr int64_t kPrepareGraceMs = 10'000;

}  // namespace

void ControlLoop::Impl::RetryLater(const std::string& job_id,
                                   int64_t delay_micros,
                                   std::string why) {
  delays_[job_id] = Delay{.until_boot_micros = BootNow() + delay_micros, .why = std::move(why)};
}

std::vector<WaitingJob> ControlLoop::Impl::WaitingJobs() {
  std::vector<WaitingJob> jobs;
  for (const auto& [id, job] : state_.jobs) {
    const bool waits = job.state == JobState::kQueued || job.state == JobState::kValidated ||
                       job.state == JobState::kRecovering;
    if (!waits) {
      continue;
    }
    if (const auto delay = delays_.find(id); delay != delays_.end()) {
      if (delay->second.until_boot_micros > BootNow()) {
        waiting_[id] = delay->second.why;
        changed_views_.insert(id);
        continue;
      }
      delays_.erase(delay);
    }
    WaitingJob waiting{.job_id = id,
                       .priority = job.file->spec.mftd.priority,
                       .created_micros = job.created_micros,
                       .kind = job.data_cache.empty() ? AttemptKind::kPrepare : AttemptKind::kTrain,
                       .needs = {}};
    const Result<Needs> needs = NeedsOf(job.file->spec, Capacity());
    if (!needs.ok() && waiting.kind == AttemptKind::kTrain) {
      waiting_[id] = needs.status().message();  // the node has lost GPUs since the submit
      changed_views_.insert(id);
      continue;
    }
    waiting.needs = needs.ok() ? *needs : Needs{};
    jobs.push_back(std::move(waiting));
  }
  return jobs;
}

void ControlLoop::Impl::SchedulePass() {
  const bool delay_over = std::any_of(delays_.begin(), delays_.end(), [this](const auto& delay) {
    return delay.second.until_boot_micros <= BootNow();
  });
  if (!closed_.ok() || (!schedule_due_ && !delay_over)) {
    return;
  }
  schedule_due_ = false;
  for (const auto& [id, why] : std::exchange(waiting_, {})) {
    changed_views_.insert(id);
  }
  std::erase_if(delays_,
                [this](const auto& delay) { return IsFinal(state_.jobs.at(delay.first).state); });
  Plan plan = Schedule(WaitingJobs(), Free());
  for (auto& [id, why] : plan.waiting) {
    waiting_[id] = std::move(why);
    changed_views_.insert(id);
  }
  snapshot_due_ = snapshot_due_ || !changed_views_.empty();
  for (const JobStart& start : plan.starts) {
    StartAttempt(start.job_id, start.leases);
  }
}

AttemptFile ControlLoop::Impl::MakeAttemptFile(const Job& job,
                                               AttemptKind kind,
                                               const Needs& needs,
                                               const std::vector<Lease>& leases) const {
  const bool train = kind == AttemptKind::kTrain;
  AttemptFile file;
  file.attempt = (train ? job.attempt : job.prepare_attempt) + 1;
  // A directory without a row is of a daemon that died before its commit.
  while (PathExists(JoinPath(JobDir(job.id), AttemptDirName(kind, file.attempt)))) {
    ++file.attempt;
  }
  file.attempt_id = RandomHex(16);
  file.kind = kind;
  file.device = train ? needs.device : "cpu";
  file.ranks = train ? needs.ranks : 1;
  file.threads = train ? needs.threads : 1;
  file.ranks_per_node = train ? needs.ranks_per_node : 0;
  if (!options_.slurm.bin_dir.empty()) {
    file.srun = JoinPath(options_.slurm.bin_dir, file.srun);
  }
  for (const Lease& lease : leases) {
    if (!lease.uuid.empty()) {
      file.gpu_uuids.push_back(lease.uuid);
    }
  }
  file.cache_root = options_.cache_root;
  file.data_cache = job.data_cache;
  file.grace_ms = train ? options_.grace_ms : kPrepareGraceMs;
  file.time_limit_ms = train ? job.file->spec.mftd.time_limit * 1000 : 0;
  file.trackers = TrackersOf(job.file->spec);
  file.tracker_python = options_.tracker_python;
  return file;
}

void ControlLoop::Impl::StartAttempt(const std::string& job_id, const std::vector<Lease>& leases) {
  const Job& job = state_.jobs.at(job_id);
  Changes changes(state_, Now());
  const AttemptKind kind = job.data_cache.empty() ? AttemptKind::kPrepare : AttemptKind::kTrain;
  if (!job.file_problem.empty()) {
    changes.Transition(
        changes.EditJob(job_id), JobState::kFailed, reason::kJobFileUnreadable, job.file_problem);
    static_cast<void>(CommitAndTell(changes));
    return;
  }
  if (kind == AttemptKind::kTrain && !IsDirectory(job.data_cache)) {
    Job& edited = changes.EditJob(job_id);
    const std::string message =
        StrCat("the token cache ", edited.data_cache, " is gone; the data is prepared again");
    edited.data_cache.clear();
    changes.Transition(edited, JobState::kQueued, reason::kDataCacheGone, message);
    static_cast<void>(CommitAndTell(changes));
    schedule_due_ = true;
    return;
  }
  const Result<Needs> needs = NeedsOf(job.file->spec, Capacity());
  const AttemptFile file = MakeAttemptFile(job, kind, needs.ok() ? *needs : Needs{}, leases);
  Result<std::vector<UniqueFd>> gpu_locks = LockGpus(options_.gpu_lock_dir, file.gpu_uuids);
  if (!gpu_locks.ok()) {
    RetryLater(job_id, kRetryStart, gpu_locks.status().message());
    return;
  }
  const std::string dir = JoinPath(JobDir(job_id), AttemptDirName(kind, file.attempt));
  if (const Status status = CreateAttemptDir(dir, file); !status.ok()) {
    spdlog::error("job {}: {}", job_id, status.ToString());
    RetryLater(job_id, kRetryStart, status.message());
    return;
  }
  CommitStart(changes, file, job_id, leases);
  if (kind == AttemptKind::kTrain) {
    TouchTokenCache(file.data_cache);
  }
  if (const auto attempt = state_.attempts.find(file.attempt_id);
      attempt != state_.attempts.end()) {
    InSlurm(kind) ? SubmitToSlurm(MakeRunning(attempt->second), file)
                  : Launch(MakeRunning(attempt->second), std::move(gpu_locks).value());
  }
}

// The attempt and its leases are in the database before its runner is in the process table.
void ControlLoop::Impl::CommitStart(Changes& changes,
                                    const AttemptFile& file,
                                    const std::string& job_id,
                                    const std::vector<Lease>& leases) {
  Job& job = changes.EditJob(job_id);
  changes.AddAttempt(Attempt{.job_id = job_id,
                             .kind = file.kind,
                             .number = file.attempt,
                             .id = file.attempt_id,
                             .executor = InSlurm(file.kind) ? Executor::kSlurm : Executor::kLocal,
                             .boot_id = boot_id_,
                             .created_micros = Now(),
                             .created_boot_micros = BootNow(),
                             .grace_ms = file.grace_ms,
                             .time_limit_ms = file.time_limit_ms,
                             .leases = leases});
  if (file.kind == AttemptKind::kTrain) {
    job.attempt = file.attempt;
    const std::string where = file.device == "cuda"
                                  ? StrCat(file.ranks, file.ranks == 1 ? " GPU" : " GPUs")
                                  : StrCat(file.ranks * file.threads, " CPU threads");
    changes.Transition(job,
                       JobState::kStarting,
                       reason::kStartingWorkers,
                       StrCat("attempt ",
                              file.attempt,
                              InSlurm(file.kind) ? " is handed to Slurm, for " : " starts on ",
                              where));
  } else {
    job.prepare_attempt = file.attempt;
    changes.Transition(job,
                       JobState::kValidating,
                       reason::kPreparingData,
                       "the data is being validated and tokenised");
    v1::JobEvent event;
    event.mutable_attempt_started()->set_kind(std::string(AttemptKindName(file.kind)));
    changes.Emit(job, std::move(event), 0);
  }
  if (const Status status = CommitAndTell(changes); !status.ok()) {
    static_cast<void>(
        RemoveTree(JoinPath(JobDir(job_id), AttemptDirName(file.kind, file.attempt))));
    schedule_due_ = true;
  }
}

// Invalid where the job has none. Without its key the tracker says what is missing; the job trains.
UniqueFd ControlLoop::Impl::OpenSecret(const std::string& job_id) const {
  const std::string& name = state_.jobs.at(job_id).file->secret;
  if (name.empty()) {
    return {};
  }
  Result<UniqueFd> secret = OpenFile(JoinPath(options_.state_dir, name), O_RDONLY);
  if (!secret.ok()) {
    spdlog::warn("job {}: {}", job_id, secret.status().ToString());
    return {};
  }
  return std::move(secret).value();
}

void ControlLoop::Impl::Launch(RunningAttempt attempt, std::vector<UniqueFd> gpu_locks) {
  Result<AttemptProcess> process =
      SpawnRunner(SpawnOptions{.runner = JoinPath(options_.program_dir, "mft-runner"),
                               .attempt_dir = attempt.dir,
                               .attempt_id = attempt.id,
                               .gpu_locks = std::move(gpu_locks),
                               .secret = OpenSecret(attempt.job_id)});
  Changes changes(state_, Now());
  if (!process.ok()) {
    spdlog::error("job {}: {}", attempt.job_id, process.status().ToString());
    attempt.start_error = process.status().message();
    attempt.dead = true;
  } else {
    Attempt& row = changes.EditAttempt(attempt.id);
    row.pid = process->pid;
    row.pid_start_ticks = process->start_ticks;
    spdlog::info("job {}: {} attempt {} runs as process {}",
                 attempt.job_id,
                 AttemptKindName(row.kind),
                 row.number,
                 row.pid);
    if (process->pidfd.valid()) {
      attempt.runner = std::move(*process);
    }
  }
  running_.emplace(attempt.id, std::move(attempt));
  // Where this commit fails the pid is found again by the attempt's id.
  static_cast<void>(CommitAndTell(changes));
}

}  // namespace mft::server
