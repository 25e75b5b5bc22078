// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/scheduler.h"

#include <algorithm>
#include <tuple>

#include "common/base/strings.h"

namespace mft::server {

namespace {

int PriorityRank(const std::string& priority) {
  if (priority == "urgent") {
    return 0;
  }
  return priority == "low" ? 2 : 1;
}

std::string Ahead(int count, std::string_view what) {
  if (count == 0) {
    return StrCat("next in line for ", what);
  }
  return StrCat("waits for ", what, " behind ", count, count == 1 ? " job" : " jobs");
}

int CeilDiv(int count, int parts) {
  return (count + parts - 1) / parts;
}

// One kind of device and its line of jobs.
struct Line {
  int blocked = 0;  // jobs of this line that could not start
};

bool TakeGpus(const Needs& needs, FreeDevices& free, std::vector<Lease>& leases) {
  const auto count = static_cast<size_t>(needs.ranks);
  if (free.gpus.size() < count) {
    return false;
  }
  leases.assign(free.gpus.begin(), free.gpus.begin() + needs.ranks);
  free.gpus.erase(free.gpus.begin(), free.gpus.begin() + needs.ranks);
  return true;
}

bool TakeCores(const Needs& needs, FreeDevices& free, std::vector<Lease>& leases) {
  if (free.cores < needs.cores) {
    return false;
  }
  free.cores -= needs.cores;
  leases = {Lease{.id = "cpu:0", .uuid = "", .cores = needs.cores}};
  return true;
}

bool TakePrepareSlot(FreeDevices& free) {
  if (free.prepare_slots <= 0) {
    return false;
  }
  --free.prepare_slots;
  return true;
}

}  // namespace

int RanksOnANode(int ranks, const NodeCapacity& node) {
  return node.ranks_per_node > 0 ? CeilDiv(ranks, CeilDiv(ranks, node.ranks_per_node)) : ranks;
}

Result<Needs> NeedsOf(const JobSpec& spec, const NodeCapacity& node) {
  Needs needs;
  needs.ranks = static_cast<int>(spec.mftd.ranks);
  const int on_a_node = RanksOnANode(needs.ranks, node);
  needs.ranks_per_node = on_a_node < needs.ranks ? on_a_node : 0;
  const bool enough_gpus = node.gpus >= on_a_node;
  if (spec.mftd.device == "cuda" && !enough_gpus) {
    const std::string spread =
        needs.ranks_per_node > 0 ? StrCat(", ", on_a_node, " on each node") : "";
    return Status(Code::kResourceExhausted,
                  "NOT_ENOUGH_DEVICES",
                  StrCat("mftd.device is cuda and mftd.ranks is ",
                         needs.ranks,
                         spread,
                         ", but ",
                         spread.empty() ? "the" : "a",
                         " node has ",
                         node.gpus,
                         node.gpus == 1 ? " GPU" : " GPUs"));
  }
  if (spec.mftd.device == "cuda" || (spec.mftd.device == "auto" && enough_gpus)) {
    needs.device = "cuda";
  }
  const int share = std::max(1, node.cores / on_a_node);
  needs.threads = spec.mftd.threads > 0 ? static_cast<int>(spec.mftd.threads) : share;
  if (needs.device == "cpu") {
    const int64_t wanted = int64_t{needs.ranks} * needs.threads;
    needs.cores = static_cast<int>(std::min<int64_t>(wanted, node.cores));
  }
  return needs;
}

Plan Schedule(std::vector<WaitingJob> jobs, FreeDevices free) {
  std::sort(jobs.begin(), jobs.end(), [](const WaitingJob& a, const WaitingJob& b) {
    return std::tuple(PriorityRank(a.priority), a.created_micros, std::string_view(a.job_id)) <
           std::tuple(PriorityRank(b.priority), b.created_micros, std::string_view(b.job_id));
  });
  Plan plan;
  Line prepare, cores, gpus, outer;
  for (const WaitingJob& job : jobs) {
    JobStart start{.job_id = job.job_id, .leases = {}};
    if (job.kind == AttemptKind::kPrepare) {
      if (prepare.blocked == 0 && TakePrepareSlot(free)) {
        plan.starts.push_back(std::move(start));
      } else {
        plan.waiting[job.job_id] = Ahead(prepare.blocked++, "data preparation");
      }
      continue;
    }
    if (free.outer_queue) {
      if (*free.outer_queue > 0) {
        --*free.outer_queue;
        plan.starts.push_back(std::move(start));
      } else {
        plan.waiting[job.job_id] = Ahead(outer.blocked++, "a place in Slurm's queue");
      }
      continue;
    }
    const bool cuda = job.needs.device == "cuda";
    Line& line = cuda ? gpus : cores;
    if (line.blocked == 0 && (cuda ? TakeGpus(job.needs, free, start.leases)
                                   : TakeCores(job.needs, free, start.leases))) {
      plan.starts.push_back(std::move(start));
      continue;
    }
    const int wanted = cuda ? job.needs.ranks : job.needs.cores;
    const size_t left = cuda ? free.gpus.size() : static_cast<size_t>(free.cores);
    const std::string what = StrCat(wanted, cuda ? " GPU" : " core", wanted == 1 ? "" : "s");
    plan.waiting[job.job_id] =
        StrCat(Ahead(line.blocked++, what), ": ", left, left == 1 ? " is free" : " are free");
  }
  return plan;
}

}  // namespace mft::server
