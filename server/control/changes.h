// SPDX-License-Identifier: Apache-2.0
// One transaction in the making: copies of what is edited, and the events that tell of it. Nothing
// is changed and nothing is told before the store has it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "mft/v1/job.pb.h"
#include "server/events/fan_out.h"
#include "server/jobs/job.h"
#include "server/store/job_store.h"

namespace mft::server {

// What the control thread remembers, as of the last commit.
struct ControlState {
  int64_t epoch = 0;
  std::map<std::string, Job> jobs;
  std::map<std::string, Attempt> attempts;  // open ones, by attempt id
  std::map<std::string, StoredRequest> requests;
};

// Threads: the control thread's. Lifetime: within one turn of the loop; `state` must outlive it.
class Changes {
 public:
  // `now_micros`: wall clock, the time of the events that the daemon itself makes.
  Changes(ControlState& state, int64_t now_micros) : state_(state), now_micros_(now_micros) {}

  // The copy that will replace the job or open attempt; made at the first call.
  // References stay valid until the commit.
  Job& EditJob(const std::string& job_id);
  Attempt& EditAttempt(const std::string& attempt_id);
  Job& AddJob(Job job);
  Attempt& AddAttempt(Attempt attempt);
  void AddRequest(StoredRequest request) { requests_.push_back(std::move(request)); }
  void SetOffset(JournalOffset offset) { offsets_.push_back(std::move(offset)); }
  void CompactSteps(const std::string& job_id) { compact_steps_.push_back(job_id); }

  // Takes the job to another state and tells so. `to` is reachable from the job's state (CHECKed).
  // A final state sets ended_micros, the first RUNNING started_micros.
  void Transition(Job& job, JobState to, std::string_view reason, std::string_view message);
  // The same state with another reason.
  void Explain(Job& job, std::string_view reason, std::string_view message);
  // Appends an event to the job's history. `attempt`: 0 for preparations and before the first
  // training attempt. `at_micros`: 0 is now.
  void Emit(Job& job, v1::JobEvent event, int attempt, int64_t at_micros = 0);

  bool empty() const;
  StoreBatch ToBatch() const;
  // After the commit: the state takes the copies; ended attempts leave it.
  void ApplyToState();
  const std::map<std::string, Job>& jobs() const { return jobs_; }
  const std::map<std::string, std::vector<EventPtr>>& events() const { return events_; }

 private:
  void TellState(Job& job, JobState from);

  ControlState& state_;
  const int64_t now_micros_;
  std::map<std::string, Job> jobs_;
  std::map<std::string, Attempt> attempts_;
  std::map<std::string, std::vector<EventPtr>> events_;  // by job, in order
  std::vector<JournalOffset> offsets_;
  std::vector<StoredRequest> requests_;
  std::vector<std::string> compact_steps_;
};

}  // namespace mft::server
