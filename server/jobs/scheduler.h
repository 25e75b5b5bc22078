// SPDX-License-Identifier: Apache-2.0
// Who starts next: a pure function from the waiting jobs and the free devices to starts.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/config/job_file.h"
#include "common/config/job_spec.h"
#include "server/jobs/job.h"

namespace mft::server {

// What the node has, free or not.
struct NodeCapacity {
  int cores = 1;
  int gpus = 0;
  int ranks_per_node = 0;  // a job of more gets several nodes like this one; 0: no job does
};

// What an attempt holds while it lives.
struct Needs {
  std::string device = "cpu";  // resolved: cpu | cuda
  int ranks = 1;
  int threads = 1;         // per rank
  int cores = 0;           // with cpu: ranks x threads, at most the whole node
  int ranks_per_node = 0;  // of a job that is spread over nodes: the most on one; 0: it is not
};

// How many of a job's ranks, at most, one node gets: all, or an even share where that is too many.
int RanksOnANode(int ranks, const NodeCapacity& node);

// Resolves `auto` and the default thread count against the node: cuda where it has enough GPUs,
// else cpu; threads: cores / ranks. Ranks of several nodes are dealt out evenly. A CPU job that
// asks for more cores than there are holds the whole node. RESOURCE_EXHAUSTED (NOT_ENOUGH_DEVICES)
// if the node can never give it.
Result<Needs> NeedsOf(const JobSpec& spec, const NodeCapacity& node);

struct WaitingJob {
  std::string job_id;
  std::string priority;  // urgent | normal | low
  int64_t created_micros = 0;
  AttemptKind kind =
      AttemptKind::kPrepare;  // a preparation takes a preparation slot and nothing else
  Needs needs;
};

struct FreeDevices {
  int prepare_slots = 0;
  int cores = 0;
  std::vector<Lease> gpus;
  // Where another scheduler (Slurm) gives devices to trainings: how many more may wait there. They
  // hold nothing of this node.
  std::optional<int> outer_queue = std::nullopt;
};

struct JobStart {
  std::string job_id;
  std::vector<Lease> leases;
};

struct Plan {
  std::vector<JobStart> starts;
  std::map<std::string, std::string> waiting;  // job to why it waits, for people
};

// All devices of a job or none. Order: priority, then age, then id. A job that does not fit holds
// back every later one that wants the same kind of device, so a large job is never starved by small
// ones.
Plan Schedule(std::vector<WaitingJob> jobs, FreeDevices free);

}  // namespace mft::server
