// SPDX-License-Identifier: Apache-2.0
// What other threads ask of the control thread: values in a queue, answered through callbacks.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"
#include "common/config/job_spec.h"
#include "server/control/cache_bound.h"
#include "server/events/snapshot.h"
#include "server/exec/slurm_job.h"

namespace mft::server {

// Called once, on the control thread (on the caller's after Shutdown); must not block.
// By then what it tells is durable and in the snapshot.
using JobDone = std::function<void(Result<JobViewPtr>)>;

struct SubmitRequest {
  JobSpec spec;  // checked and resolved: absolute paths, name filled in
  std::string owner;
  std::string request_id;    // "": not idempotent
  std::string request_hash;  // SHA-256 of the request; the same id with another hash is refused
  std::string wandb_key;     // a secret: in no log, event or database, and not in the hash
  v1::Estimate estimate;
  bool validate_only =
      false;  // every check; the answer is a null JobViewPtr and nothing is created
};

struct CancelRequest {
  std::string job_id;
  bool now = false;  // without a checkpoint
};

// A GPU as the inventory sees it.
struct GpuInfo {
  std::string id;  // "gpu:0"
  std::string uuid;
  std::string name;
  int64_t memory_bytes = 0;
  int64_t memory_free_bytes = 0;
  bool available = true;  // false: a foreign process uses it, or it is broken
  std::string detail;     // why not
};

// A lease for something that need not survive the daemon (Chat).
struct SlotRequest {
  std::string device = "cpu";  // cpu | cuda
  int cores = 1;               // with cpu
  std::string holder;          // for people, e.g. the job id
};
struct Slot {
  uint64_t id = 0;
  Lease lease;
};
using SlotDone = std::function<void(Result<Slot>)>;

struct SubmitCommand {
  SubmitRequest request;
  JobDone done;
};
struct CancelCommand {
  CancelRequest request;
  JobDone done;
};
struct DevicesCommand {
  std::vector<GpuInfo> gpus;
};
struct AcquireSlotCommand {
  SlotRequest request;
  SlotDone done;
};
struct ReleaseSlotCommand {
  uint64_t slot_id = 0;
};
// The admission thread has made (or failed to make) the files of a job.
struct AdmittedCommand {
  std::string job_id;
  Status status;
};
// The disk thread has brought the token caches within their bound.
struct CachesBoundCommand {
  CacheUse use;
};
// sbatch has ended, for this attempt.
struct SlurmSubmittedCommand {
  std::string attempt_id;
  Result<std::string> slurm_job;
};
// squeue has ended.
struct SlurmListedCommand {
  Result<SlurmJobs> jobs;
};
// scancel has ended.
struct SlurmSignalledCommand {
  std::string attempt_id;
  SlurmSignal signal = SlurmSignal::kTerminate;
  Status status;
};
struct ShutdownCommand {};

using Command = std::variant<SubmitCommand,
                             CancelCommand,
                             DevicesCommand,
                             AcquireSlotCommand,
                             ReleaseSlotCommand,
                             AdmittedCommand,
                             CachesBoundCommand,
                             SlurmSubmittedCommand,
                             SlurmListedCommand,
                             SlurmSignalledCommand,
                             ShutdownCommand>;

// Many producers, one consumer that polls event_fd() and then takes everything.
// Threads: Push from any thread; the rest is the consumer's.
class CommandQueue {
 public:
  static constexpr size_t kMaxCommands = 10'000;

  static Result<std::unique_ptr<CommandQueue>> Create();
  // UNAVAILABLE (the daemon stops) or RESOURCE_EXHAUSTED (TOO_MANY_COMMANDS) leave the command
  // untouched. The daemon's own threads are `internal`: their commands, bounded by what they
  // answer, are never too many.
  Status Push(Command& command, bool internal = false);
  int event_fd() const { return event_fd_.get(); }
  std::deque<Command> TakeAll();  // and clears the eventfd
  std::deque<Command> Close();    // no Push succeeds afterwards; gives back what was left

 private:
  explicit CommandQueue(UniqueFd event_fd) : event_fd_(std::move(event_fd)) {}

  UniqueFd event_fd_;
  std::mutex mutex_;  // guards what follows
  std::deque<Command> commands_;
  bool closed_ = false;
};

}  // namespace mft::server
