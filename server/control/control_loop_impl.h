// SPDX-License-Identifier: Apache-2.0
// The inside of ControlLoop. loop_*.cc have one responsibility each: commands, attempts, views.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "common/base/files.h"
#include "common/base/processes.h"
#include "server/control/admission.h"
#include "server/control/changes.h"
#include "server/control/control_loop.h"
#include "server/control/disk_thread.h"
#include "server/control/journals.h"
#include "server/control/slurm_watch.h"
#include "server/exec/slurm_client.h"
#include "server/exec/stop_ladder.h"
#include "server/jobs/retry.h"
#include "server/jobs/scheduler.h"
#include "server/store/job_store.h"

namespace mft::server {

// What of an open attempt is not in the database.
struct RunningAttempt {
  std::string id;
  std::string job_id;
  AttemptKind kind = AttemptKind::kTrain;
  std::string dir;
  std::optional<AttemptProcess> runner;  // none: not found yet, or gone
  std::vector<JournalCursor> journals;
  bool runner_exited = false;       // its pidfd said so
  std::optional<SlurmWatch> slurm;  // of one that Slurm runs; it has no `runner`
  bool signalling = false;          // a scancel is under way
  std::optional<SlurmSignal> last_signal;
  int64_t next_signal_micros = 0;  // when to repeat it
  bool dead = false;               // its lock is free
  bool rebooted = false;           // it is of another boot
  bool adopted = false;            // started by an earlier daemon
  int empty_scans = 0;      // since it is dead: searches in a row that found no process of it
  bool gone = false;        // dead, and no process is left
  std::string start_error;  // the runner could not be started
  std::vector<std::string> errors;  // first messages of level error, for the job's message
};

// Threads: everything but the constructor, Create's steps and Stop runs on the control thread.
class ControlLoop::Impl {
 public:
  Impl(ControlOptions options, SnapshotBox& snapshots, FanOut& fan_out);
  ~Impl();

  // Create
  Status Open(const std::string& database_path);
  // Start, Shutdown
  void Start();
  std::vector<std::string> Stop();
  CommandQueue& queue() { return *queue_; }

 private:
  // control_loop_impl.cc: life and the loop itself
  void LoadJobFiles();
  void RemoveOldSecrets();
  void Run();
  void Turn();
  void Wait();
  int TimeoutMs() const;
  void Maintain();
  void BoundCaches();
  void ProbeStore();
  // Commits, then changes the memory, then tells. A failure that passes leaves everything as it
  // was.
  Status CommitAndTell(Changes& changes);
  [[noreturn]] void Die(const Status& status);
  int64_t Now() const { return clock_->WallMicros(); }
  int64_t BootNow() const { return clock_->BoottimeMicros(); }

  // loop_commands.cc
  void HandleCommands();
  void Handle(SubmitCommand& command);
  void Handle(CancelCommand& command);
  void Handle(DevicesCommand& command);
  void Handle(AcquireSlotCommand& command);
  void Handle(ReleaseSlotCommand& command);
  void Handle(AdmittedCommand& command);
  void Handle(CachesBoundCommand& command);
  void Handle(SlurmSubmittedCommand& command);
  void Handle(SlurmListedCommand& command);
  void Handle(SlurmSignalledCommand& command);
  void Handle(ShutdownCommand& command);
  Status CheckSubmit(const SubmitRequest& request) const;
  bool AnswerKnownRequest(SubmitCommand& command);
  std::string JobWithRunDir(const std::string& run_dir) const;
  void RejectLeftovers();

  // loop_start.cc: which jobs start now, and how an attempt begins
  void SchedulePass();
  std::vector<WaitingJob> WaitingJobs();
  void StartAttempt(const std::string& job_id, const std::vector<Lease>& leases);
  AttemptFile MakeAttemptFile(const Job& job,
                              AttemptKind kind,
                              const Needs& needs,
                              const std::vector<Lease>& leases) const;
  void CommitStart(Changes& changes,
                   const AttemptFile& file,
                   const std::string& job_id,
                   const std::vector<Lease>& leases);
  UniqueFd OpenSecret(const std::string& job_id) const;
  void Launch(RunningAttempt attempt, std::vector<UniqueFd> gpu_locks);
  bool InSlurm(AttemptKind kind) const {
    return options_.executor == Executor::kSlurm && kind == AttemptKind::kTrain;
  }
  void RetryLater(const std::string& job_id, int64_t delay_micros, std::string why);

  // loop_attempts.cc: attempts found again, followed, stopped and ended
  void Adopt(const StoredState& stored);
  void FollowAttempts();
  void CheckAlive(RunningAttempt& attempt, Changes& changes);
  void CheckLock(RunningAttempt& attempt, Changes& changes);
  void ClimbStopLadder(RunningAttempt& attempt, Changes& changes);
  void ReadJournals(Changes& changes);
  void EndIfOver(RunningAttempt& attempt, Changes& changes);
  void EndAttempt(const RunningAttempt& attempt, Changes& changes, const AttemptEnd& end);
  RunningAttempt MakeRunning(const Attempt& attempt) const;

  // loop_slurm.cc
  void SubmitToSlurm(RunningAttempt attempt, const AttemptFile& file);
  template <typename Ask>
  void AskSlurm(Ask ask);
  void ListSlurmJobs();
  void NoteSlurmJob(const RunningAttempt& attempt, Changes& changes);
  void CheckSlurm(RunningAttempt& attempt);
  void StopInSlurm(RunningAttempt& attempt, StopAction action);

  // loop_views.cc
  void PublishSnapshot();
  JobViewPtr MakeView(const Job& job) const;
  std::vector<DeviceView> MakeDevices() const;
  const Attempt* OpenAttemptOf(const std::string& job_id) const;
  FreeDevices Free() const;
  NodeCapacity Capacity() const;
  std::string JobDir(const std::string& job_id) const;

  struct Pending {  // a submit whose files are being made
    SubmitRequest request;
    std::vector<JobDone> done;
    int64_t created_micros = 0;
    std::string secret;  // as JobFile::secret
    RunDirClaim claim;
  };
  struct Delay {  // a job that may not start yet
    int64_t until_boot_micros = 0;
    std::string why;
  };

  const ControlOptions options_;
  const Clock* const clock_;
  const std::string boot_id_;
  SnapshotBox& snapshots_;
  FanOut& fan_out_;
  UniqueFd state_lock_;
  std::unique_ptr<CommandQueue> queue_;
  std::unique_ptr<JobStore> store_;
  DiskThread disk_;
  const SlurmClient slurm_;
  std::stop_source slurm_stop_;
  DiskThread slurm_thread_;
  std::thread thread_;

  ControlState state_;
  std::map<std::string, RunningAttempt> running_;  // by attempt id
  std::map<std::string, Pending> pending_;         // by job id
  std::map<std::string, Delay> delays_;            // by job id
  std::map<std::string, std::string> waiting_;     // by job id: why it waits, for people
  std::map<uint64_t, SlotRequest> slots_;
  std::map<uint64_t, Lease> slot_leases_;
  std::vector<GpuInfo> gpus_;
  uint64_t next_slot_ = 1;
  size_t first_journal_ = 0;  // whose turn it is to be read first

  std::map<std::string, JobViewPtr> views_;
  std::set<std::string> changed_views_;
  bool snapshot_due_ = true;
  bool schedule_due_ = true;
  bool caches_due_ = true;
  bool slurm_listing_ = false;  // a squeue is under way
  bool slurm_answers_ = true;
  int64_t last_slurm_listing_micros_ = 0;
  int64_t next_slurm_listing_micros_ = 0;
  bool more_to_read_ = false;  // the last turn left journal bytes behind
  bool ready_ = false;
  bool stopping_ = false;
  Status closed_;  // why nothing can be written and no job is accepted; ok: it can
  int64_t next_probe_micros_ = 0;
  int64_t next_maintenance_micros_ = 0;
  int64_t start_micros_ = 0;
  int64_t snapshot_version_ = 0;
  LoopStats stats_;
};

}  // namespace mft::server
