// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/transitions.h"

#include <set>

#include <gtest/gtest.h>

#include "mft/v1/job.pb.h"

namespace mft::server {
namespace {

using enum JobState;

TEST(JobStates, MirrorTheWireContract) {
  const auto* descriptor = v1::JobState_descriptor();
  ASSERT_EQ(descriptor->value_count(), static_cast<int>(kJobStates.size()) + 1);  // and UNSPECIFIED
  for (const JobState state : kJobStates) {
    const auto* value = descriptor->FindValueByNumber(static_cast<int>(state));
    ASSERT_NE(value, nullptr) << static_cast<int>(state);
    EXPECT_EQ(value->name(), JobStateName(state));
    EXPECT_EQ(ParseJobState(value->name()), state);
  }
  EXPECT_EQ(ParseJobState("JOB_STATE_UNSPECIFIED"), std::nullopt);
}

TEST(JobStates, OnlyTheThreeFinalOnesLeadNowhere) {
  std::set<JobState> final_states;
  for (const JobState state : kJobStates) {
    if (IsFinal(state)) {
      final_states.insert(state);
    }
  }
  EXPECT_EQ(final_states, (std::set<JobState>{kSucceeded, kFailed, kCancelled}));
}

TEST(JobStates, EveryPairIsEitherInTheTableOrRefused) {
  // Written out a second time on purpose: a change of the table is a change of the contract.
  const std::set<std::pair<JobState, JobState>> legal = {
      {kQueued, kValidating},    {kQueued, kPaused},        {kQueued, kCancelled},
      {kQueued, kFailed},        {kValidating, kValidated}, {kValidating, kRecovering},
      {kValidating, kPausing},   {kValidating, kPaused},    {kValidating, kCancelling},
      {kValidating, kFailed},    {kValidated, kStarting},   {kValidated, kQueued},
      {kValidated, kPaused},     {kValidated, kCancelled},  {kValidated, kFailed},
      {kStarting, kRunning},     {kStarting, kSucceeded},   {kStarting, kRecovering},
      {kStarting, kPausing},     {kStarting, kPaused},      {kStarting, kCancelling},
      {kStarting, kFailed},      {kRunning, kSucceeded},    {kRunning, kRecovering},
      {kRunning, kPausing},      {kRunning, kPaused},       {kRunning, kCancelling},
      {kRunning, kFailed},       {kPausing, kPaused},       {kPausing, kSucceeded},
      {kPausing, kCancelling},   {kPausing, kFailed},       {kPaused, kQueued},
      {kPaused, kValidated},     {kPaused, kCancelled},     {kRecovering, kValidating},
      {kRecovering, kStarting},  {kRecovering, kQueued},    {kRecovering, kPaused},
      {kRecovering, kCancelled}, {kRecovering, kFailed},    {kCancelling, kCancelled},
      {kCancelling, kSucceeded},
  };
  for (const JobState from : kJobStates) {
    for (const JobState to : kJobStates) {
      EXPECT_EQ(CanTransition(from, to), legal.contains({from, to}))
          << JobStateName(from) << " to " << JobStateName(to);
    }
  }
}

TEST(JobStates, EveryOneIsReachableFromQueuedAndReachesAnEnd) {
  std::set<JobState> reached = {kQueued};
  for (size_t round = 0; round < kJobStates.size(); ++round) {
    for (const JobState from : std::set<JobState>(reached)) {
      const auto next = NextStates(from);
      reached.insert(next.begin(), next.end());
    }
  }
  EXPECT_EQ(reached.size(), kJobStates.size());
}

TEST(JobReasons, AreDistinctUpperSnakeCase) {
  std::set<std::string_view> seen;
  for (const std::string_view name : reason::kAll) {
    EXPECT_TRUE(seen.insert(name).second) << name;
    EXPECT_LE(name.size(), 63u);
    EXPECT_EQ(name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_"), std::string_view::npos)
        << name;
  }
}

}  // namespace
}  // namespace mft::server
