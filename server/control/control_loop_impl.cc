// SPDX-License-Identifier: Apache-2.0
#include "server/control/control_loop_impl.h"

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <thread>

#include <spdlog/spdlog.h>

#include "common/base/strings.h"
#include "server/control/cache_bound.h"
#include "server/exec/attempt_dir.h"
#include "server/exec/patient_lock.h"

namespace mft::server {

namespace {

constexpr int64_t kSecond = 1'000'000;
constexpr int kDeadMs = 5;  // until a dead attempt is searched for processes again
constexpr int64_t kMaintenanceInterval = 3600 * kSecond;
constexpr int64_t kCacheAge = 60 * kSecond;  // clocks of file systems are coarse
constexpr int64_t kRequestAge = int64_t{7} * 86'400 * kSecond;
constexpr int64_t kStepEventAge = int64_t{30} * 86'400 * kSecond;

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

ControlOptions Resolved(ControlOptions options) {
  options.cores = options.cores > 0 ? options.cores : UsableCores();
  options.cache_root =
      options.cache_root.empty() ? JoinPath(options.state_dir, "cache") : options.cache_root;
  options.program_dir = options.program_dir.empty() ? ExecutableDir() : options.program_dir;
  options.clock = options.clock != nullptr ? options.clock : &SystemClock();
  return options;
}

}  // namespace

ControlLoop::Impl::Impl(ControlOptions options, SnapshotBox& snapshots, FanOut& fan_out)
    : options_(Resolved(std::move(options))),
      clock_(options_.clock),
      boot_id_(BootId()),
      snapshots_(snapshots),
      fan_out_(fan_out),
      slurm_(options_.slurm) {}

ControlLoop::Impl::~Impl() {
  Stop();
}

Status ControlLoop::Impl::Open(const std::string& database_path) {
  MFT_RETURN_IF_ERROR(MakeDurableDirs(options_.state_dir, 0700).WithContext("state directory"));
  MFT_ASSIGN_OR_RETURN(state_lock_, LockFilePatiently(JoinPath(options_.state_dir, "lock")));
  if (!state_lock_.valid()) {
    return {Code::kFailedPrecondition,
            "STATE_DIR_IN_USE",
            StrCat("another mftd serves the state directory ", options_.state_dir)};
  }
  MFT_RETURN_IF_ERROR(MakeDurableDirs(JoinPath(options_.state_dir, "jobs"), 0700));
  MFT_RETURN_IF_ERROR(MakeDurableDirs(options_.cache_root, 0700));
  MFT_ASSIGN_OR_RETURN(queue_, CommandQueue::Create());
  start_micros_ = Now();
  MFT_ASSIGN_OR_RETURN(store_, JobStore::Open(database_path, start_micros_));
  MFT_ASSIGN_OR_RETURN(StoredState stored, store_->Load());
  state_.epoch = stored.epoch;
  for (StoredRequest& request : stored.requests) {
    state_.requests[request.request_id] = std::move(request);
  }
  for (Job& job : stored.jobs) {
    const std::string id = job.id;
    state_.jobs[id] = std::move(job);
    changed_views_.insert(id);
  }
  LoadJobFiles();
  RemoveOldSecrets();
  Adopt(stored);
  ready_ = true;
  PublishSnapshot();
  return Status::Ok();
}

// job.json was durable before its job was committed; one that cannot be read now ends its job, not
// the daemon.
void ControlLoop::Impl::LoadJobFiles() {
  for (auto& [id, job] : state_.jobs) {
    Result<JobFile> file = ReadJobFile(JoinPath(JobDir(id), "job.json"));
    if (!file.ok()) {
      job.file_problem = file.status().message();
      spdlog::error("job {}: {}", id, job.file_problem);
    }
    job.file = std::make_shared<const JobFile>(file.ok() ? std::move(file).value() : JobFile{});
  }
}

// Of jobs that have ended, or were not committed, when the daemon before this one died.
void ControlLoop::Impl::RemoveOldSecrets() {
  const Status status = RemoveSecretsExcept(options_.state_dir, [this](const std::string& job_id) {
    const auto job = state_.jobs.find(job_id);
    return job != state_.jobs.end() && !IsFinal(job->second.state);
  });
  if (!status.ok()) {
    spdlog::error("secrets of jobs that have ended: {}", status.ToString());
  }
}

void ControlLoop::Impl::Start() {
  disk_.Start();
  slurm_thread_.Start();
  thread_ = std::thread([this] { Run(); });
}

std::vector<std::string> ControlLoop::Impl::Stop() {
  std::vector<std::string> going_on;
  if (!queue_) {
    return going_on;
  }
  slurm_stop_.request_stop();
  if (thread_.joinable()) {
    Command command(ShutdownCommand{});
    static_cast<void>(queue_->Push(command, true));
    thread_.join();
  }
  disk_.Stop();
  slurm_thread_.Stop();
  RejectLeftovers();
  for (const auto& [id, attempt] : running_) {
    going_on.push_back(attempt.job_id);
  }
  return going_on;
}

void ControlLoop::Impl::Run() {
  while (!stopping_) {
    Turn();
    if (!stopping_) {
      Wait();
    }
  }
}

// Commands first: a reply never waits for journals.
void ControlLoop::Impl::Turn() {
  HandleCommands();
  if (stopping_) {
    return;
  }
  ListSlurmJobs();
  FollowAttempts();
  ProbeStore();
  SchedulePass();
  Maintain();
  if (snapshot_due_) {
    PublishSnapshot();
  }
}

void ControlLoop::Impl::Wait() {
  std::vector<pollfd> fds = {{.fd = queue_->event_fd(), .events = POLLIN, .revents = 0}};
  std::vector<RunningAttempt*> watched;
  for (auto& [id, attempt] : running_) {
    if (attempt.runner && !attempt.runner_exited) {
      fds.push_back({.fd = attempt.runner->pidfd.get(), .events = POLLIN, .revents = 0});
      watched.push_back(&attempt);
    }
  }
  if (poll(fds.data(), fds.size(), TimeoutMs()) < 0 && errno != EINTR) {
    Die(ErrnoStatus(errno, "poll"));
  }
  for (size_t i = 0; i < watched.size(); ++i) {
    if ((fds[i + 1].revents & (POLLIN | POLLERR | POLLNVAL)) != 0) {
      watched[i]->runner_exited = true;
      ReapIfChild(watched[i]->runner->pidfd);
    }
  }
}

int ControlLoop::Impl::TimeoutMs() const {
  if (more_to_read_ || (schedule_due_ && closed_.ok())) {
    return 0;
  }
  const auto is_dead = [](const auto& entry) { return entry.second.dead; };
  if (closed_.ok() && std::any_of(running_.begin(), running_.end(), is_dead)) {
    return kDeadMs;
  }
  if (!running_.empty()) {
    return static_cast<int>(options_.tick_ms);
  }
  int64_t until = std::min(next_maintenance_micros_, BootNow() + 60 * kSecond);
  if (!closed_.ok()) {
    until = std::min(until, next_probe_micros_);
  }
  for (const auto& [job_id, delay] : delays_) {
    until = std::min(until, delay.until_boot_micros);
  }
  return static_cast<int>(std::clamp<int64_t>((until - BootNow()) / 1000 + 1, 1, 60'000));
}

Status ControlLoop::Impl::CommitAndTell(Changes& changes) {
  if (changes.empty()) {
    return Status::Ok();
  }
  const int64_t begin = BootNow();
  const Status status = store_->Commit(changes.ToBatch());
  if (IsFatalStoreError(status)) {
    Die(status);
  }
  if (!status.ok()) {
    ++stats_.store_errors;
    if (closed_.ok()) {
      spdlog::error("the state cannot be written, new jobs are refused: {}", status.ToString());
      next_probe_micros_ = BootNow() + options_.probe_ms * 1000;
      snapshot_due_ = true;
    }
    closed_ = status;
    return status;
  }
  const double seconds = static_cast<double>(BootNow() - begin) / kSecond;
  ++stats_.commits;
  stats_.commit_seconds += seconds;
  stats_.max_commit_seconds = std::max(stats_.max_commit_seconds, seconds);
  changes.ApplyToState();
  for (const auto& [id, job] : changes.jobs()) {
    changed_views_.insert(id);
    if (const Job& now = state_.jobs.at(id); IsFinal(now.state) && !now.file->secret.empty()) {
      if (const Status removed = RemoveSecret(options_.state_dir, id); !removed.ok()) {
        spdlog::error("job {}: {}", id, removed.ToString());
      }
    }
  }
  PublishSnapshot();
  for (const auto& [id, events] : changes.events()) {
    stats_.events += static_cast<int64_t>(events.size());
    fan_out_.Publish(id, events, IsFinal(state_.jobs.at(id).state));
  }
  return status;
}

void ControlLoop::Impl::Die(const Status& status) {
  // What is on disk is not known any more; the next start finds out. Jobs go on meanwhile.
  spdlog::critical("the daemon ends, its state cannot be kept: {}", status.ToString());
  spdlog::default_logger()->flush();
  std::_Exit(ExitCodeFor(Code::kInternal));
}

void ControlLoop::Impl::ProbeStore() {
  if (closed_.ok() || BootNow() < next_probe_micros_) {
    return;
  }
  next_probe_micros_ = BootNow() + options_.probe_ms * 1000;
  const Status status = store_->Probe();
  if (IsFatalStoreError(status)) {
    Die(status);
  }
  if (status.ok()) {
    spdlog::info("the state can be written again, new jobs are accepted");
    closed_ = Status::Ok();
    schedule_due_ = true;
    snapshot_due_ = true;
  }
}

void ControlLoop::Impl::BoundCaches() {
  CacheBound bound{.max_bytes = options_.cache_bytes, .keep_since_micros = Now() - kCacheAge};
  for (const auto& [id, job] : state_.jobs) {
    if (!IsFinal(job.state)) {
      bound.in_use.insert(job.data_cache);
    }
  }
  for (const auto& [id, running] : running_) {
    if (running.kind == AttemptKind::kPrepare) {
      // It may have ended with a cache, and its journal is still to be read.
      bound.keep_since_micros =
          std::min(bound.keep_since_micros, state_.attempts.at(id).created_micros);
    }
  }
  disk_.Push([this, root = options_.cache_root, bound] {
    const Result<CacheUse> use = BoundTokenCaches(root, bound);
    if (!use.ok()) {
      spdlog::warn("token caches: {}", use.status().ToString());
      return;
    }
    Command command(CachesBoundCommand{*use});
    static_cast<void>(queue_->Push(command, true));
  });
}

void ControlLoop::Impl::Maintain() {
  if (caches_due_ && closed_.ok()) {
    caches_due_ = false;
    BoundCaches();
  }
  if (BootNow() < next_maintenance_micros_ || !closed_.ok()) {
    return;
  }
  next_maintenance_micros_ = BootNow() + kMaintenanceInterval;
  caches_due_ = true;
  const int64_t oldest_request = Now() - kRequestAge;
  std::erase_if(state_.requests,
                [&](const auto& entry) { return entry.second.at_micros < oldest_request; });
  Status status = store_->DeleteRequestsBefore(oldest_request);
  for (const auto& [id, job] : state_.jobs) {
    if (!status.ok() || !IsFinal(job.state) || job.compacted_sequence != 0 ||
        job.ended_micros > Now() - kStepEventAge) {
      continue;
    }
    const Result<int64_t> last = store_->LastStepSequence(id);
    status = last.status();
    if (last.ok() && *last > 0) {
      Changes changes(state_, Now());
      changes.CompactSteps(id);
      changes.EditJob(id).compacted_sequence = *last;
      status = CommitAndTell(changes);
    }
  }
  if (IsFatalStoreError(status)) {
    Die(status);
  }
}

}  // namespace mft::server
