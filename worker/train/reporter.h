// SPDX-License-Identifier: Apache-2.0
// Everything that a rank tells: journal, metric files, heartbeat, and lines on stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/journal/heartbeat.h"
#include "common/journal/writer.h"
#include "worker/train/metrics_log.h"
#include "worker/train/stop_signals.h"

namespace mft {

inline constexpr std::string_view kReasonDiskFull = "DISK_FULL";

// Steps, evaluations, checkpoints and messages are the same on every rank, and rank 0 alone writes
// them to its journal and to the metric files; each rank logs them. Threads: one at a time.
class Reporter {
 public:
  struct Options {
    std::string
        attempt_dir;  // of rank-N.jsonl and rank-N.beat; "": stand-alone, neither is written
    std::string attempt_id;
    int rank = 0;
    // A full disk (durability.md, "States"): how often to try again, and for how long.
    std::chrono::milliseconds disk_retry{10'000};
    std::chrono::milliseconds disk_give_up{30 * 60 * 1000};
  };
  // `signals` and `clock` must outlive the reporter.
  static Result<std::unique_ptr<Reporter>> Open(const Options& options,
                                                const StopSignals& signals,
                                                const Clock& clock);

  // From here on `place` is told where this rank is: step of the job, and phase.
  void FollowPlace(std::function<void(int64_t step, std::string_view phase)> place) {
    place_ = std::move(place);
  }

  // From here on the run is the part of a job that begins after `first_step` of `max_steps` (0:
  // the run is the job): what is told of it counts the job's steps. Metric files count the run's.
  void SetPart(int64_t first_step, int64_t max_steps);

  // From here on steps and evaluations go to run_dir's metric files too.
  Status OpenMetrics(const MetricsLog::Options& options);
  MetricsLengths metrics_lengths() const;

  Status Phase(std::string_view phase, std::string_view detail = {});
  Status Resumed(int64_t from_step);
  Status Step(const StepRecord& of_run);
  Status Eval(const EvalRecord& of_run);
  Status Checkpoint(const CheckpointRecord& of_run);  // synced
  // The last record, synced. Tried once: what it cannot say on a full disk, the exit code does.
  void Final(const FinalRecord& final_record);
  // Best effort, as all that is only read by people.
  void Message(LogLevel level, std::string_view text);
  void Beat(int64_t step);
  // At work on `step`, doing `what`: until the next Beat or Phase.
  void Place(int64_t step, std::string_view what) const;
  int64_t last_step() const { return part_begin_ + step_; }  // of the job

  // Runs `work`; while it fails for lack of disk space, waits and runs it again, so it must be
  // repeatable. RESOURCE_EXHAUSTED (DISK_FULL) after `disk_give_up`, or when a stop is requested
  // meanwhile.
  Status Persist(const std::function<Status()>& work);

 private:
  Reporter(Options options, const StopSignals& signals, const Clock& clock)
      : options_(std::move(options)),
        signals_(signals),
        clock_(clock),
        started_micros_(clock.BoottimeMicros()) {}
  Status Append(RecordBody body);  // with Persist
  // Of what is the same on every rank.
  JournalWriter* FirstJournal() const { return options_.rank == 0 ? journal_.get() : nullptr; }
  Status AppendOfFirst(RecordBody body);
  Status WaitForDisk(Status status, const std::function<Status()>& work);
  double SecondsSinceStart() const;
  void Line(std::string_view logger, LogLevel level, std::string_view text) const;

  const Options options_;
  const StopSignals& signals_;
  const Clock& clock_;
  const int64_t started_micros_;
  std::unique_ptr<JournalWriter> journal_;
  std::unique_ptr<HeartbeatWriter> heartbeat_;
  std::unique_ptr<MetricsLog> metrics_;
  std::function<void(int64_t, std::string_view)> place_;
  std::string phase_;
  int64_t step_ = 0;  // of the last heartbeat
  int64_t part_begin_ = 0;
  int64_t job_steps_ = 0;
};

// Resident memory of this process, now and at its peak (VmRSS, VmHWM); 0 where unknown.
struct ProcessMemory {
  int64_t resident_bytes = 0;
  int64_t peak_bytes = 0;
};
ProcessMemory ReadProcessMemory();

}  // namespace mft
