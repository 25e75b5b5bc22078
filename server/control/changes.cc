// SPDX-License-Identifier: Apache-2.0
#include "server/control/changes.h"

#include <google/protobuf/util/time_util.h>

#include "common/base/strings.h"
#include "server/events/job_event.h"

namespace mft::server {

using google::protobuf::util::TimeUtil;

Job& Changes::EditJob(const std::string& job_id) {
  const auto it = jobs_.find(job_id);
  return it != jobs_.end() ? it->second
                           : jobs_.emplace(job_id, state_.jobs.at(job_id)).first->second;
}

Attempt& Changes::EditAttempt(const std::string& attempt_id) {
  const auto it = attempts_.find(attempt_id);
  return it != attempts_.end()
             ? it->second
             : attempts_.emplace(attempt_id, state_.attempts.at(attempt_id)).first->second;
}

Job& Changes::AddJob(Job job) {
  const std::string id = job.id;
  Job& added = jobs_.emplace(id, std::move(job)).first->second;
  v1::JobEvent event;
  event.mutable_state_changed()->set_to(static_cast<v1::JobState>(added.state));
  event.mutable_state_changed()->set_reason(added.reason);
  event.mutable_state_changed()->set_message(added.message);
  Emit(added, std::move(event), 0);
  return added;
}

Attempt& Changes::AddAttempt(Attempt attempt) {
  const std::string id = attempt.id;
  return attempts_.emplace(id, std::move(attempt)).first->second;
}

void Changes::Transition(Job& job, JobState to, std::string_view reason, std::string_view message) {
  MFT_CHECK(CanTransition(job.state, to),
            StrCat("job ",
                   job.id,
                   ": ",
                   JobStateName(job.state),
                   " to ",
                   JobStateName(to),
                   " (",
                   reason,
                   ")"));
  const JobState from = job.state;
  job.state = to;
  job.reason = reason;
  job.message = message;
  if (to == JobState::kRunning && job.started_micros == 0) {
    job.started_micros = now_micros_;
  }
  if (IsFinal(to)) {
    job.ended_micros = now_micros_;
    job.progress.eta_seconds = 0;
  }
  TellState(job, from);
}

void Changes::Explain(Job& job, std::string_view reason, std::string_view message) {
  job.reason = reason;
  job.message = message;
  TellState(job, job.state);
}

void Changes::TellState(Job& job, JobState from) {
  v1::JobEvent event;
  event.mutable_state_changed()->set_from(static_cast<v1::JobState>(from));
  event.mutable_state_changed()->set_to(static_cast<v1::JobState>(job.state));
  event.mutable_state_changed()->set_reason(job.reason);
  event.mutable_state_changed()->set_message(job.message);
  Emit(job, std::move(event), job.attempt);
}

void Changes::Emit(Job& job, v1::JobEvent event, int attempt, int64_t at_micros) {
  event.set_sequence(++job.last_sequence);
  event.set_job_id(job.id);
  event.set_attempt(attempt);
  event.set_epoch(state_.epoch);
  *event.mutable_time() =
      TimeUtil::MicrosecondsToTimestamp(at_micros != 0 ? at_micros : now_micros_);
  events_[job.id].push_back(std::make_shared<const v1::JobEvent>(std::move(event)));
}

bool Changes::empty() const {
  return jobs_.empty() && attempts_.empty() && offsets_.empty() && requests_.empty() &&
         compact_steps_.empty();
}

StoreBatch Changes::ToBatch() const {
  StoreBatch batch;
  for (const auto& [id, job] : jobs_) {
    batch.jobs.push_back(job);
  }
  for (const auto& [id, attempt] : attempts_) {
    batch.attempts.push_back(attempt);
  }
  for (const auto& [id, events] : events_) {
    for (const EventPtr& event : events) {
      batch.events.push_back(ToStoredEvent(*event));
    }
  }
  batch.offsets = offsets_;
  batch.requests = requests_;
  batch.compact_steps = compact_steps_;
  return batch;
}

void Changes::ApplyToState() {
  for (const auto& [id, job] : jobs_) {
    state_.jobs[id] = job;
  }
  for (const auto& [id, attempt] : attempts_) {
    if (attempt.ended_micros != 0) {
      state_.attempts.erase(id);
    } else {
      state_.attempts[id] = attempt;
    }
  }
  for (const StoredRequest& request : requests_) {
    state_.requests[request.request_id] = request;
  }
}

}  // namespace mft::server
