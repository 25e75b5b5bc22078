// SPDX-License-Identifier: Apache-2.0
// The control loop over the real mft-runner; the ranks are fake_worker (tests/support/README.md).
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/processes.h"
#include "tests/server/control/harness.h"

namespace mft::server {
namespace {

using testing::Eventually;
using testing::Harness;
using ::testing::HasSubstr;
using testing::MakeSpec;
using testing::States;
using testing::Steps;

std::vector<int64_t> Range(int64_t last) {
  std::vector<int64_t> range(static_cast<size_t>(last));
  std::iota(range.begin(), range.end(), 1);
  return range;
}

class RealRunner : public ::testing::Test {
 protected:
  RealRunner() {
    harness_.options().program_dir = MFT_FAKE_BIN;
    harness_.Start();
  }
  std::string Submit(const std::string& script, int64_t steps, int ranks = 1) {
    SubmitRequest request;
    request.spec = MakeSpec(harness_.RunDir("a"), steps, {{"fake", script}});
    request.spec.mftd.ranks = ranks;
    return (*harness_.Submit(std::move(request)))->job.id;
  }
  Harness harness_;
};

TEST_F(RealRunner, TwoRanksTrainToTheEnd) {
  const std::string id = Submit("ckpt=5", 20, 2);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << harness_.View(id)->job.message;
  EXPECT_EQ(Steps(harness_.Events(id)), Range(20));
  EXPECT_EQ(harness_.View(id)->job.progress.last_checkpoint_step, 20);
  EXPECT_TRUE(PathExists(harness_.View(id)->attempt_dir + "/rank-1.log"));
}

TEST_F(RealRunner, ACrashedRankIsTriedAgainFromTheNewestCheckpoint) {
  const std::string id = Submit("ckpt=5,crash_at@1=12,only_attempt=1", 20, 2);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << harness_.View(id)->job.message;
  const std::vector<v1::JobEvent> events = harness_.Events(id);
  std::vector<int64_t> from_steps;
  std::string why;
  for (const v1::JobEvent& event : events) {
    if (event.has_attempt_started() && event.attempt_started().kind() == "train") {
      from_steps.push_back(event.attempt_started().from_step());
    }
    if (event.has_state_changed() && event.state_changed().to() == v1::RECOVERING) {
      why = event.state_changed().message();
    }
  }
  ASSERT_EQ(from_steps.size(), 2u);
  EXPECT_EQ(from_steps[0], 0);
  EXPECT_GE(from_steps[1], 5);
  EXPECT_THAT(why, HasSubstr("rank 1 was ended by signal 6"));
  EXPECT_EQ(Steps(events).back(), 20);
}

TEST_F(RealRunner, CancelWritesACheckpointFirst) {
  const std::string id = Submit("step_ms=5", 100'000);
  ASSERT_TRUE(Eventually([&] { return harness_.View(id)->job.progress.step >= 3; }));
  ASSERT_TRUE(harness_.Cancel(id).ok());
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kCancelled));
  EXPECT_GE(harness_.View(id)->job.progress.last_checkpoint_step, 3);
  EXPECT_TRUE(harness_.Events(id).back().has_state_changed());
}

TEST_F(RealRunner, BadDataFailsTheJobWithFileAndLine) {
  const std::string id = Submit("prepare_bad_data=1", 5);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kFailed));
  EXPECT_EQ(harness_.View(id)->job.reason, reason::kValidationFailed);
  EXPECT_EQ(harness_.View(id)->job.message,
            "data.jsonl:3: the last message must be of the assistant");
}

TEST_F(RealRunner, AFloodOfEventsIsReadInSharesWithoutLoss) {
  const std::string id = Submit("flood=400", 20);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded));
  int64_t messages = 0;
  for (const v1::JobEvent& event : harness_.Events(id)) {
    messages += event.has_message() && event.message().rank() == 0 ? 1 : 0;
  }
  EXPECT_EQ(messages, 20 * 400);
  EXPECT_GT(harness_.loop().snapshot()->stats.journal_bytes, 8'000'000);
}

TEST_F(RealRunner, ALostRunnerLeavesNoRankBehind) {
  const std::string id = Submit("step_ms=5,ckpt=1,orphan=1,only_attempt=1", 60);
  ASSERT_TRUE(Eventually([&] { return harness_.View(id)->job.progress.step >= 2; }));
  const std::string attempt_id =
      ReadAttemptFile(harness_.View(id)->attempt_dir + "/attempt.json")->attempt_id;
  int runner_pid = 0;
  const std::vector<AttemptProcess> processes = FindAttemptProcesses(attempt_id);
  for (const AttemptProcess& process : processes) {
    const std::string comm = ReadFile("/proc/" + std::to_string(process.pid) + "/comm").value();
    runner_pid = comm == "mft-runner\n" ? process.pid : runner_pid;
  }
  ASSERT_GT(runner_pid, 0);
  ASSERT_EQ(kill(runner_pid, SIGKILL), 0);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded));
  EXPECT_EQ(harness_.View(id)->job.attempt, 2);
  EXPECT_TRUE(FindAttemptProcesses(attempt_id).empty());
}

}  // namespace
}  // namespace mft::server
