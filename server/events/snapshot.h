// SPDX-License-Identifier: Apache-2.0
// What the daemon knows, as of the last commit: immutable, swapped atomically, read by anybody.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "mft/v1/job.pb.h"
#include "server/jobs/job.h"
#include "server/jobs/scheduler.h"

namespace mft::server {

struct JobView {
  Job job;  // spec: job.file->spec
  v1::Estimate estimate;
  std::vector<Lease> devices;  // held now
  std::string waiting;         // why a waiting job waits, for people; "" for others
  std::string job_dir;         // <state>/jobs/<job>
  // Directory with logs of the newest attempt (training, else preparation): rank-N.log; "" before
  // the first.
  std::string attempt_dir;
};
using JobViewPtr = std::shared_ptr<const JobView>;

// Directory of one attempt below job_dir: "prepare/0001", "attempts/0001".
std::string AttemptDirName(AttemptKind kind, int number);

// A device as the inventory and the leases show it. CPU: one entry "cpu:0" with all cores of the
// node.
struct DeviceView {
  std::string id;    // "gpu:0", "cpu:0"
  std::string kind;  // gpu | cpu
  std::string name;
  std::string uuid;
  int64_t memory_bytes = 0;
  int64_t memory_free_bytes = 0;
  int cores = 0;       // cpu: of the node
  int cores_free = 0;  // cpu: not leased
  bool available = true;
  std::string detail;                // why it is not available
  std::vector<std::string> job_ids;  // holders
};

// Counters since the daemon started, for /metrics.
struct LoopStats {
  int64_t commits = 0;
  double commit_seconds = 0;  // sum
  double max_commit_seconds = 0;
  int64_t events = 0;
  int64_t journal_bytes = 0;
  int64_t adopted_attempts = 0;
  int64_t lost_attempts = 0;
  int64_t store_errors = 0;  // commits refused by a full disk
  int running_attempts = 0;
  int64_t caches = 0;  // token caches, when they were last brought within their bound
  int64_t cache_bytes = 0;
  int64_t caches_removed = 0;
  int64_t cache_bytes_removed = 0;
};

struct Snapshot {
  int64_t version = 0;  // grows with each swap
  int64_t epoch = 0;    // of the database
  int64_t start_micros = 0;
  bool ready = false;            // adoption has ended
  std::string admission_closed;  // why submits are refused now; "" when they are accepted
  std::map<std::string, JobViewPtr> jobs;
  std::vector<JobViewPtr> newest_first;  // by (created, id), descending
  std::vector<DeviceView> devices;
  NodeCapacity training_node;  // what a training can have: of this node, or of one of Slurm's
  LoopStats stats;

  JobViewPtr Find(const std::string& job_id) const {
    const auto it = jobs.find(job_id);
    return it == jobs.end() ? nullptr : it->second;
  }
};
// shared_ptr: readers keep theirs while the control thread swaps in the next.
using SnapshotPtr = std::shared_ptr<const Snapshot>;

// Threads: safe from any thread. (A mutex: libstdc++ 12's atomic<shared_ptr> is a lock too, one
// that the thread sanitizer does not understand.)
class SnapshotBox {
 public:
  SnapshotPtr Get() const {
    const std::lock_guard lock(mutex_);
    return current_;
  }
  void Set(SnapshotPtr next) {
    const std::lock_guard lock(mutex_);
    current_.swap(next);
  }

 private:
  mutable std::mutex mutex_;
  SnapshotPtr current_ = std::make_shared<const Snapshot>();
};

}  // namespace mft::server
