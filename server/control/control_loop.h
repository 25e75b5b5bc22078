// SPDX-License-Identifier: Apache-2.0
// The daemon's heart: one thread that owns every job's state. Commands come in through a queue,
// snapshots and events go out; every change is committed to SQLite before anybody hears of it
// (server/README.md).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/config/server_config.h"
#include "server/control/commands.h"
#include "server/events/fan_out.h"
#include "server/events/snapshot.h"
#include "server/store/event_reader.h"

namespace mft::server {

struct ControlOptions {
  std::string state_dir;    // absolute; created with mode 0700
  std::string program_dir;  // where mft-runner is; ExecutableDir() for the daemon itself
  std::string cache_root;   // token caches; "": <state>/cache
  int64_t cache_bytes = int64_t{64} << 30;  // token caches beyond that go, oldest first
  std::string gpu_lock_dir = "/run/lock";
  int cores = 0;          // to share out between CPU jobs; 0: as many as this process may run on
  int prepare_slots = 2;  // data preparations at once; they take no cores from training
  int64_t grace_ms = 120'000;       // from SIGTERM to SIGKILL of the ranks; the runner keeps it
  int64_t kill_margin_ms = 10'000;  // so much longer until the daemon kills runner and ranks itself
  int64_t retry_delay_ms = 1'000;   // before the second attempt; doubles up to a minute
  std::string tracker_python = "python3";  // of mft-track, looked for in PATH
  Executor executor = Executor::kLocal;    // of trainings; preparations run on this node
  SlurmConfig slurm;                       // state_dir and program_dir are on its nodes too
  int64_t slurm_poll_ms = 5'000;           // between two looks at its queue
  int64_t slurm_urgent_poll_ms = 1'000;    // ... while an attempt begins or ends
  int64_t slurm_forget_ms =
      10'000;  // an attempt that Slurm does not list for so long is over there
  int64_t tick_ms = 100;
  int64_t probe_ms = 5'000;  // between tries to write again, after the state could not be written
  const Clock* clock = nullptr;  // nullptr: SystemClock()
};

// Life: Create (opens the state, adopts) -> Start (runs the thread) -> Shutdown (jobs go on).
// Threads: Create, Start, Shutdown and the destructor by one owner; everything else from any
// thread.
class ControlLoop {
 public:
  // Takes <state>/lock, opens and migrates the database, finds running attempts again.
  // FAILED_PRECONDITION (STATE_DIR_IN_USE) if another daemon serves `state_dir`.
  static Result<std::unique_ptr<ControlLoop>> Create(ControlOptions options);
  ~ControlLoop();  // Shutdown
  ControlLoop(const ControlLoop&) = delete;
  ControlLoop& operator=(const ControlLoop&) = delete;

  void Start();
  // Stops the thread after the commands already queued; running attempts go on. Idempotent.
  // Returns the jobs whose attempts go on without the daemon, for the log.
  std::vector<std::string> Shutdown();

  // Queues a job: job.json durable, then the commit, then `done` with the job.
  // ALREADY_EXISTS: RUN_DIR_IN_USE, REQUEST_ID_REUSED. RESOURCE_EXHAUSTED: NOT_ENOUGH_DEVICES,
  // STATE_DISK_FULL, TOO_MANY_COMMANDS. PERMISSION_DENIED, INVALID_ARGUMENT: run_dir cannot be made
  // or written. UNAVAILABLE: the daemon stops.
  void Submit(SubmitRequest request, JobDone done);
  // Commits the intent, then signals. NOT_FOUND (JOB_NOT_FOUND); FAILED_PRECONDITION
  // (JOB_FINISHED). Repeating it is harmless; `now` after a plain cancel kills.
  void Cancel(CancelRequest request, JobDone done);

  // The node's GPUs, again whenever something changed; none until the first call.
  void UpdateDevices(std::vector<GpuInfo> gpus);
  // A lease in memory only. RESOURCE_EXHAUSTED (NO_FREE_SLOT) when everything is held.
  void AcquireSlot(SlotRequest request, SlotDone done);
  void ReleaseSlot(uint64_t slot_id);

  SnapshotPtr snapshot() const { return snapshots_.Get(); }
  FanOut& fan_out() { return fan_out_; }
  const std::string& database_path() const { return database_path_; }
  // For a reader thread of its own (it blocks on the disk).
  Result<std::unique_ptr<EventReader>> OpenEventReader() const {
    return EventReader::Open(database_path_);
  }

 private:
  class Impl;
  ControlLoop();

  SnapshotBox snapshots_;
  FanOut fan_out_;
  std::string database_path_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mft::server
