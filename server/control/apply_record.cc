// SPDX-License-Identifier: Apache-2.0
#include "server/control/apply_record.h"

#include <cmath>

#include "common/base/strings.h"
#include "server/events/job_event.h"

namespace mft::server {

namespace {

std::optional<double> Finite(double value) {
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

class Applier {
 public:
  Applier(Changes& changes, Job& job, Attempt& attempt, int rank)
      : changes_(changes), job_(job), attempt_(attempt), rank_(rank) {}

  void operator()(const HeaderRecord&) {}
  void operator()(const FinalRecord&) {}  // the runner's result repeats it
  void operator()(const MessageRecord&) {}

  void operator()(const PhaseRecord& record) {
    if (rank_ != 0) {
      return;
    }
    job_.progress.phase = record.phase;
    if (record.phase == kPhaseDiskFull && job_.state == JobState::kRunning) {
      changes_.Explain(job_, reason::kDiskFull, StrCat("waits for disk space: ", record.detail));
    } else if (record.phase == kPhaseTraining) {
      Run();
    }
  }

  void operator()(const ResumeRecord& record) {
    v1::JobEvent event;
    event.mutable_attempt_started()->set_from_step(record.from_step);
    event.mutable_attempt_started()->set_kind(std::string(AttemptKindName(attempt_.kind)));
    for (const Lease& lease : attempt_.leases) {
      v1::DeviceLease& device = *event.mutable_attempt_started()->add_devices();
      device.set_id(lease.id);
      device.set_uuid(lease.uuid);
    }
    changes_.Emit(job_, std::move(event), job_.attempt);
    job_.progress.step = record.from_step;
  }

  void operator()(const StepRecord& record) {
    Run();
    job_.progress.step = record.step;
    job_.progress.max_steps = record.max_steps;
    job_.progress.train_loss = Finite(record.loss);
    job_.progress.tokens_per_second = Finite(record.tokens_per_second).value_or(0);
    job_.progress.eta_seconds = Finite(record.eta_seconds).value_or(0);
  }

  void operator()(const EvalRecord& record) { job_.progress.eval_loss = Finite(record.eval_loss); }

  void operator()(const CheckpointRecord& record) {
    job_.progress.last_checkpoint_step = record.step;
  }

  void operator()(const DataPreparedRecord& record) {
    job_.data_cache = record.cache;
    // The figures from sizes become those of the data itself.
    v1::Estimate estimate;
    if (!estimate.ParseFromString(job_.estimate)) {
      estimate.Clear();
    }
    estimate.set_exact(true);
    estimate.set_samples(record.samples);
    estimate.set_tokens(record.tokens);
    estimate.set_loss_tokens(record.loss_tokens);
    estimate.set_steps_per_epoch(record.steps_per_epoch);
    estimate.set_epochs(record.epochs);
    job_.estimate = estimate.SerializeAsString();
  }

  void operator()(const ResultRecord& record) {
    if (rank_ == kRunnerRank) {
      attempt_.result = record;
    }
  }

 private:
  // Training goes on: RUNNING from STARTING, and from RUNNING for another reason. A request to stop
  // is not undone.
  void Run() {
    if (job_.state == JobState::kStarting) {
      changes_.Transition(job_, JobState::kRunning, reason::kTraining, "training");
    } else if (job_.state == JobState::kRunning && job_.reason != reason::kTraining) {
      changes_.Explain(job_, reason::kTraining, "training");
    }
  }

  Changes& changes_;
  Job& job_;
  Attempt& attempt_;
  const int rank_;
};

}  // namespace

void ApplyRecord(Changes& changes, const std::string& attempt_id, int rank, const Record& record) {
  Attempt& attempt = changes.EditAttempt(attempt_id);
  Job& job = changes.EditJob(attempt.job_id);
  if (std::optional<v1::JobEvent> event = EventOfRecord(record, rank)) {
    const int number = attempt.kind == AttemptKind::kTrain ? attempt.number : 0;
    changes.Emit(job, std::move(*event), number, record.at_micros);
  }
  std::visit(Applier(changes, job, attempt, rank), record.body);
}

void ApplyDamage(Changes& changes,
                 const std::string& attempt_id,
                 const std::string& file,
                 const JournalDamage& damage) {
  const Attempt& attempt = changes.EditAttempt(attempt_id);
  Job& job = changes.EditJob(attempt.job_id);
  v1::JobEvent event;
  event.mutable_journal_damaged()->set_file(file);
  event.mutable_journal_damaged()->set_offset(damage.offset);
  event.mutable_journal_damaged()->set_detail(damage.detail);
  changes.Emit(job, std::move(event), attempt.kind == AttemptKind::kTrain ? attempt.number : 0);
}

}  // namespace mft::server
