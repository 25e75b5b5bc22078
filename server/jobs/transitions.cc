// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/transitions.h"

#include <algorithm>
#include <vector>

namespace mft::server {

namespace {

using enum JobState;

struct StateRow {
  JobState state;
  std::string_view name;
  std::vector<JobState> next;
};

// The whole life of a job. PAUSED, QUEUED, VALIDATED and RECOVERING have no processes, so they
// cancel at once; CANCELLING leads to SUCCEEDED where the request met a job that was just done.
const std::array<StateRow, 12>& Table() {
  static const std::array<StateRow, 12> kTable = {{
      {kQueued, "QUEUED", {kValidating, kPaused, kCancelled, kFailed}},
      {kValidating,
       "VALIDATING",
       {kValidated, kRecovering, kPausing, kPaused, kCancelling, kFailed}},
      {kValidated, "VALIDATED", {kStarting, kQueued, kPaused, kCancelled, kFailed}},
      {kStarting,
       "STARTING",
       {kRunning, kSucceeded, kRecovering, kPausing, kPaused, kCancelling, kFailed}},
      {kRunning, "RUNNING", {kSucceeded, kRecovering, kPausing, kPaused, kCancelling, kFailed}},
      {kPausing, "PAUSING", {kPaused, kSucceeded, kCancelling, kFailed}},
      {kPaused, "PAUSED", {kQueued, kValidated, kCancelled}},
      {kRecovering, "RECOVERING", {kValidating, kStarting, kQueued, kPaused, kCancelled, kFailed}},
      {kCancelling, "CANCELLING", {kCancelled, kSucceeded}},
      {kSucceeded, "SUCCEEDED", {}},
      {kFailed, "FAILED", {}},
      {kCancelled, "CANCELLED", {}},
  }};
  return kTable;
}

const StateRow& Row(JobState state) {
  return Table()[static_cast<size_t>(state) - 1];
}

}  // namespace

std::string_view JobStateName(JobState state) {
  return Row(state).name;
}

std::optional<JobState> ParseJobState(std::string_view name) {
  for (const StateRow& row : Table()) {
    if (row.name == name) {
      return row.state;
    }
  }
  return std::nullopt;
}

bool IsFinal(JobState state) {
  return Row(state).next.empty();
}

bool CanTransition(JobState from, JobState to) {
  const std::span<const JobState> next = NextStates(from);
  return std::find(next.begin(), next.end(), to) != next.end();
}

std::span<const JobState> NextStates(JobState from) {
  return Row(from).next;
}

}  // namespace mft::server
