// SPDX-License-Identifier: Apache-2.0
// Jobs from submit to end, with real processes.
#include <signal.h>

#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/processes.h"
#include "server/exec/attempt_dir.h"
#include "tests/server/control/harness.h"

namespace mft::server {
namespace {

using ::testing::ElementsAre;
using testing::Eventually;
using testing::Harness;
using ::testing::HasSubstr;
using testing::MakeSpec;
using testing::States;
using testing::Steps;

std::vector<int64_t> Range(int64_t first, int64_t last) {
  std::vector<int64_t> range(static_cast<size_t>(last - first + 1));
  std::iota(range.begin(), range.end(), first);
  return range;
}

class JobLife : public ::testing::Test {
 protected:
  JobLife() { harness_.Start(); }
  Harness harness_;
};

TEST_F(JobLife, SucceedsThroughEveryState) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 5);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << harness_.View(id)->job.message;
  const std::vector<v1::JobEvent> events = harness_.Events(id);
  EXPECT_THAT(States(events),
              ElementsAre("QUEUED", "VALIDATING", "VALIDATED", "STARTING", "RUNNING", "SUCCEEDED"));
  EXPECT_EQ(Steps(events), Range(1, 5));
  EXPECT_TRUE(events.back().has_state_changed()) << "the terminal event is the last";
  const JobViewPtr view = harness_.View(id);
  EXPECT_EQ(view->job.last_sequence, static_cast<int64_t>(events.size()));
  EXPECT_EQ(view->job.attempt, 1);
  EXPECT_EQ(view->job.progress.step, 5);
  EXPECT_EQ(view->job.reason, reason::kCompleted);
  EXPECT_GT(view->job.started_micros, view->job.created_micros);
  EXPECT_GE(view->job.ended_micros, view->job.started_micros);
  EXPECT_TRUE(view->devices.empty()) << "the lease is given back";
  EXPECT_TRUE(view->estimate.exact());
  EXPECT_EQ(view->estimate.tokens(), 700);
  EXPECT_EQ(view->attempt_dir, view->job_dir + "/attempts/0001");
}

TEST_F(JobLife, EventsOfTrainingNameTheirAttempt) {
  const std::string id =
      harness_.Submit(harness_.RunDir("a"), 3, {{"fail", "crash"}, {"fail_at", "3"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << harness_.View(id)->job.message;
  int64_t from_step = -1;
  for (const v1::JobEvent& event : harness_.Events(id)) {
    if (event.has_attempt_started() && event.attempt_started().kind() == "train") {
      from_step = event.attempt_started().from_step();
      EXPECT_EQ(event.attempt(), from_step == 0 ? 1 : 2);
      EXPECT_EQ(event.attempt_started().devices_size(), 1);
    }
    if (event.has_step()) {
      EXPECT_EQ(event.attempt(), event.step().step() <= 2 ? 1 : 2);
    }
    if (event.has_data_prepared()) {
      EXPECT_EQ(event.attempt(), 0);
    }
  }
  EXPECT_EQ(from_step, 2);
}

TEST_F(JobLife, BadDataFailsWithItsFirstProblems) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 5, {{"prepare", "invalid"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kFailed));
  EXPECT_EQ(harness_.View(id)->job.reason, reason::kValidationFailed);
  EXPECT_THAT(harness_.View(id)->job.message, HasSubstr("train.jsonl:3: a conversation must end"));
  EXPECT_EQ(harness_.View(id)->job.attempt, 0);
  // The same job file can be submitted again once the data is right.
  const std::string again = harness_.Submit(harness_.RunDir("a"), 2);
  EXPECT_TRUE(harness_.WaitFor(again, JobState::kSucceeded));
}

TEST_F(JobLife, ACrashIsRetriedFromWhereItStood) {
  const std::string id =
      harness_.Submit(harness_.RunDir("a"), 6, {{"fail", "crash"}, {"fail_at", "4"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << harness_.View(id)->job.message;
  EXPECT_THAT(States(harness_.Events(id)),
              ElementsAre("QUEUED",
                          "VALIDATING",
                          "VALIDATED",
                          "STARTING",
                          "RUNNING",
                          "RECOVERING",
                          "STARTING",
                          "RUNNING",
                          "SUCCEEDED"));
  EXPECT_EQ(Steps(harness_.Events(id)), Range(1, 6));
  EXPECT_EQ(harness_.View(id)->job.retries_used, 1);
}

TEST_F(JobLife, ARunnerThatDiesWithoutAResultIsLostAndRetried) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 4, {{"fail", "die"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << harness_.View(id)->job.message;
  EXPECT_EQ(harness_.View(id)->job.attempt, 2);
  EXPECT_EQ(harness_.loop().snapshot()->stats.lost_attempts, 1);
}

TEST_F(JobLife, RetriesEnd) {
  testing::Labels labels = {{"fail", "crash"}, {"fail_attempts", "9"}};
  SubmitRequest request;
  request.spec = MakeSpec(harness_.RunDir("a"), 5, labels);
  request.spec.mftd.retries = 1;
  const std::string id = (*harness_.Submit(request))->job.id;
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kFailed));
  EXPECT_EQ(harness_.View(id)->job.attempt, 2);
  EXPECT_EQ(harness_.View(id)->job.message, "rank 0 died of signal 11 (1 retry used up)");
}

TEST_F(JobLife, AnErrorThatWouldComeAgainIsNotRetried) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 5, {{"fail", "permanent"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kFailed));
  EXPECT_EQ(harness_.View(id)->job.attempt, 1);
  EXPECT_EQ(harness_.View(id)->job.reason, "MODEL_NOT_FOUND");
}

TEST_F(JobLife, AWorkerThatMissesItsTokenCacheGetsAnother) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 6, {{"fail", "no_cache"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded));
  EXPECT_EQ(harness_.View(id)->job.prepare_attempt, 2);
  EXPECT_EQ(harness_.View(id)->job.attempt, 2);
  EXPECT_EQ(harness_.View(id)->job.retries_used, 1);
}

TEST_F(JobLife, AStopWithoutARequestGoesOnWithoutUsingARetry) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 5, {{"fail", "stop"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded));
  EXPECT_EQ(harness_.View(id)->job.retries_used, 0);
  EXPECT_EQ(harness_.View(id)->job.attempt, 2);
}

TEST_F(JobLife, CancelStopsARunningJobThroughItsRunner) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 100'000);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRunning));
  const Result<JobViewPtr> cancelling = harness_.Cancel(id);
  ASSERT_TRUE(cancelling.ok());
  EXPECT_EQ((*cancelling)->job.state, JobState::kCancelling);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kCancelled));
  EXPECT_EQ(harness_.Cancel(id).status().reason(), "JOB_FINISHED");
  EXPECT_EQ(harness_.Cancel("jnobody").status().reason(), "JOB_NOT_FOUND");
}

TEST_F(JobLife, CancelNowKillsARunnerThatDoesNotListen) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 100'000, {{"ignore_term", "true"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRunning));
  ASSERT_TRUE(harness_.Cancel(id).ok());
  EXPECT_EQ(harness_.View(id)->job.state, JobState::kCancelling);
  ASSERT_TRUE(harness_.Cancel(id, true).ok());
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kCancelled));
}

TEST_F(JobLife, CancelDuringPreparationLeavesNoProcess) {
  const std::string id = harness_.Submit(harness_.RunDir("a"), 5, {{"prepare", "hang"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kValidating));
  const std::string dir = harness_.View(id)->attempt_dir;
  ASSERT_TRUE(harness_.Cancel(id).ok());
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kCancelled));
  EXPECT_FALSE(*AttemptLockHeld(dir));
}

TEST_F(JobLife, JobsShareTheCoresAndWaitForThem) {
  SubmitRequest large;
  large.spec = MakeSpec(harness_.RunDir("large"), 100'000);
  large.spec.mftd.threads = 3;
  const std::string first = (*harness_.Submit(large))->job.id;
  ASSERT_TRUE(harness_.WaitFor(first, JobState::kRunning));
  large.spec.run_dir = harness_.RunDir("next");
  const std::string second = (*harness_.Submit(large))->job.id;
  ASSERT_TRUE(harness_.WaitFor(second, JobState::kValidated));
  EXPECT_TRUE(Eventually([&] {
    return harness_.View(second)->waiting == "next in line for 3 cores: 1 is free";
  })) << harness_.View(second)->waiting;
  const DeviceView cpu = harness_.loop().snapshot()->devices.back();
  EXPECT_EQ(cpu.cores_free, 1);
  EXPECT_THAT(cpu.job_ids, ElementsAre(first));
  ASSERT_TRUE(harness_.Cancel(first).ok());
  EXPECT_TRUE(harness_.WaitFor(second, JobState::kRunning));
}

}  // namespace
}  // namespace mft::server
