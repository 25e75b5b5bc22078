// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/job_series.h"

#include <algorithm>

#include "server/jobs/transitions.h"

namespace mft::server {

namespace {
double Seconds(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + static_cast<double>(time.nanos()) * 1e-9;
}

void TakeStep(const v1::JobEvent& event, JobSeries& series) {
  const v1::Step& step = event.step();
  series.has_step = true;
  series.learning_rate = step.learning_rate();
  series.grad_norm = step.grad_norm();
  if (step.has_expert_imbalance()) {
    series.expert_imbalance = step.expert_imbalance();
  }
  series.tokens += step.tokens();
  series.nonfinite += step.nonfinite() ? 1 : 0;
  series.last_step_seconds = Seconds(event.time());
  const auto bound = std::lower_bound(
      JobSeries::kStepBounds.begin(), JobSeries::kStepBounds.end(), step.step_seconds());
  ++series.step_buckets[static_cast<size_t>(bound - JobSeries::kStepBounds.begin())];
  series.step_seconds_sum += step.step_seconds();
}
}  // namespace

void JobSeriesTable::OnEvent(const v1::JobEvent& event) {
  const std::lock_guard lock(mutex_);
  JobSeries& series = data_.jobs[event.job_id()];
  if (event.has_step()) {
    TakeStep(event, series);
  } else if (event.has_checkpoint()) {
    series.last_checkpoint_seconds = Seconds(event.time());
    series.checkpoint_bytes = event.checkpoint().size_bytes();
  } else if (event.has_attempt_started() && event.attempt() > 1 &&
             event.attempt_started().kind() == "train") {
    ++series.restarts;
  } else if (event.has_state_changed() &&
             IsFinal(static_cast<JobState>(event.state_changed().to()))) {
    ++data_.finished[{v1::JobState_Name(event.state_changed().to()),
                      event.state_changed().reason()}];
  }
}

JobSeriesTable::Copy JobSeriesTable::Get() const {
  const std::lock_guard lock(mutex_);
  return data_;
}

void JobSeriesTable::Remove(const std::string& job_id) {
  const std::lock_guard lock(mutex_);
  data_.jobs.erase(job_id);
}

}  // namespace mft::server
