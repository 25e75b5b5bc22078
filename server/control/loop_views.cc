// SPDX-License-Identifier: Apache-2.0
// What others see of the control thread's state.
#include <algorithm>
#include <tuple>

#include "common/base/strings.h"
#include "server/control/control_loop_impl.h"

namespace mft::server {

std::string AttemptDirName(AttemptKind kind, int number) {
  std::string digits = std::to_string(number);
  digits.insert(0, digits.size() < 4 ? 4 - digits.size() : 0, '0');
  return StrCat(kind == AttemptKind::kPrepare ? "prepare/" : "attempts/", digits);
}

std::string ControlLoop::Impl::JobDir(const std::string& job_id) const {
  return JoinPath(JoinPath(options_.state_dir, "jobs"), job_id);
}

const Attempt* ControlLoop::Impl::OpenAttemptOf(const std::string& job_id) const {
  for (const auto& [id, attempt] : state_.attempts) {
    if (attempt.job_id == job_id) {
      return &attempt;
    }
  }
  return nullptr;
}

NodeCapacity ControlLoop::Impl::Capacity() const {
  if (options_.executor == Executor::kSlurm) {
    const auto cores = static_cast<int>(options_.slurm.cores_per_node);
    return {.cores = cores > 0 ? cores : options_.cores,
            .gpus = static_cast<int>(options_.slurm.gpus_per_node),
            .ranks_per_node = static_cast<int>(options_.slurm.ranks_per_node)};
  }
  return {.cores = options_.cores, .gpus = static_cast<int>(gpus_.size())};
}

FreeDevices ControlLoop::Impl::Free() const {
  FreeDevices free{.prepare_slots = options_.prepare_slots, .cores = options_.cores, .gpus = {}};
  std::set<std::string> taken;
  const auto take = [&](const Lease& lease) {
    free.cores -= lease.cores;
    taken.insert(lease.uuid);
  };
  if (options_.executor == Executor::kSlurm) {
    free.outer_queue = static_cast<int>(options_.slurm.max_jobs);
  }
  for (const auto& [id, attempt] : state_.attempts) {
    if (free.outer_queue && attempt.executor == Executor::kSlurm) {
      *free.outer_queue = std::max(0, *free.outer_queue - 1);
    }
    free.prepare_slots -= attempt.kind == AttemptKind::kPrepare ? 1 : 0;
    std::for_each(attempt.leases.begin(), attempt.leases.end(), take);
  }
  for (const auto& [id, lease] : slot_leases_) {
    take(lease);
  }
  for (const GpuInfo& gpu : gpus_) {
    if (gpu.available && !taken.contains(gpu.uuid)) {
      free.gpus.push_back(Lease{.id = gpu.id, .uuid = gpu.uuid, .cores = 0});
    }
  }
  return free;
}

JobViewPtr ControlLoop::Impl::MakeView(const Job& job) const {
  auto view = std::make_shared<JobView>();
  view->job = job;
  if (!view->estimate.ParseFromString(job.estimate)) {
    view->estimate.Clear();
  }
  if (const Attempt* attempt = OpenAttemptOf(job.id)) {
    view->devices = attempt->leases;
  }
  if (const auto it = waiting_.find(job.id); it != waiting_.end()) {
    view->waiting = it->second;
  }
  view->job_dir = JobDir(job.id);
  if (job.attempt > 0) {
    view->attempt_dir = JoinPath(view->job_dir, AttemptDirName(AttemptKind::kTrain, job.attempt));
  } else if (job.prepare_attempt > 0) {
    view->attempt_dir =
        JoinPath(view->job_dir, AttemptDirName(AttemptKind::kPrepare, job.prepare_attempt));
  }
  return view;
}

std::vector<DeviceView> ControlLoop::Impl::MakeDevices() const {
  std::map<std::string, std::vector<std::string>> holders;  // by device id
  for (const auto& [id, attempt] : state_.attempts) {
    for (const Lease& lease : attempt.leases) {
      holders[lease.id].push_back(attempt.job_id);
    }
  }
  for (const auto& [id, lease] : slot_leases_) {
    holders[lease.id].push_back(slots_.at(id).holder);
  }
  std::vector<DeviceView> devices;
  for (const GpuInfo& gpu : gpus_) {
    devices.push_back(DeviceView{.id = gpu.id,
                                 .kind = "gpu",
                                 .name = gpu.name,
                                 .uuid = gpu.uuid,
                                 .memory_bytes = gpu.memory_bytes,
                                 .memory_free_bytes = gpu.memory_free_bytes,
                                 .available = gpu.available,
                                 .detail = gpu.detail,
                                 .job_ids = holders[gpu.id]});
  }
  devices.push_back(DeviceView{.id = "cpu:0",
                               .kind = "cpu",
                               .name = "CPU",
                               .cores = options_.cores,
                               .cores_free = Free().cores,
                               .job_ids = holders["cpu:0"]});
  return devices;
}

void ControlLoop::Impl::PublishSnapshot() {
  for (const std::string& id : changed_views_) {
    views_[id] = MakeView(state_.jobs.at(id));
  }
  changed_views_.clear();
  auto next = std::make_shared<Snapshot>();
  next->version = ++snapshot_version_;
  next->epoch = state_.epoch;
  next->start_micros = start_micros_;
  next->ready = ready_;
  next->admission_closed = closed_.message();
  next->jobs = views_;
  for (const auto& [id, view] : views_) {
    next->newest_first.push_back(view);
  }
  std::sort(next->newest_first.begin(),
            next->newest_first.end(),
            [](const JobViewPtr& a, const JobViewPtr& b) {
              return std::tie(a->job.created_micros, a->job.id) >
                     std::tie(b->job.created_micros, b->job.id);
            });
  next->devices = MakeDevices();
  next->training_node = Capacity();
  next->stats = stats_;
  next->stats.running_attempts = static_cast<int>(state_.attempts.size());
  snapshots_.Set(std::move(next));
  snapshot_due_ = false;
}

}  // namespace mft::server
