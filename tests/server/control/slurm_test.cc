// SPDX-License-Identifier: Apache-2.0
// Trainings through Slurm's programs, played by fake_slurm over real processes.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <numeric>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "server/exec/attempt_dir.h"
#include "server/store/sqlite.h"
#include "tests/server/control/daemon_process.h"
#include "tests/server/control/harness.h"

namespace mft::server {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using testing::Eventually;
using testing::Harness;
using ::testing::HasSubstr;
using testing::Labels;
using testing::States;
using testing::Steps;

std::vector<int64_t> Range(int64_t last) {
  std::vector<int64_t> range(static_cast<size_t>(last));
  std::iota(range.begin(), range.end(), 1);
  return range;
}

// The folder of a fake Slurm.
class FakeSlurm {
 public:
  FakeSlurm() {
    for (const char* name : {"sbatch", "squeue", "scancel", "release"}) {
      MFT_CHECK(symlink(MFT_FAKE_SLURM, temp_.File(name).c_str()) == 0, name);
    }
  }
  std::string dir() const { return temp_.File("."); }
  void Set(const std::string& name) { temp_.Write(name, ""); }
  void Unset(const std::string& name) { unlink(temp_.File(name).c_str()); }
  std::string JobFile(int id, const std::string& name) const {
    return temp_.File(StrCat("jobs/", id, "/", name));
  }
  void Say(int id, const std::string& state) {
    MFT_CHECK(WriteFileAtomic(JobFile(id, "state"), state + "\n").ok(), state);
  }
  void Release(int id) {
    MFT_CHECK(system(StrCat(temp_.File("release"), " ", id).c_str()) == 0, "release");
  }
  void Kill(int id, int signal) {
    const pid_t pid = std::stoi(ReadFile(JobFile(id, "pid")).value());
    MFT_CHECK(kill(pid, signal) == 0, "kill");
  }
  int Jobs() const {
    const auto jobs = ListDir(temp_.File("jobs"));
    return jobs.ok() ? static_cast<int>(jobs->size()) : 0;
  }
  std::string Calls() const { return ReadFile(temp_.File("calls")).value(); }

 private:
  mft::testing::TempDir temp_;
};

class SlurmTest : public ::testing::Test {
 protected:
  SlurmTest() {
    ControlOptions& options = harness_.options();
    options.executor = Executor::kSlurm;
    options.slurm.bin_dir = slurm_.dir();
    options.slurm_poll_ms = 20;
    options.slurm_urgent_poll_ms = 20;
    options.slurm_forget_ms = 300;
    harness_.Start();
  }
  ~SlurmTest() override {
    for (const char* name : {"down", "refuse", "hold", "lose"}) {
      slurm_.Unset(name);
    }
  }

  std::string Submit(int64_t steps, Labels labels = {}) {
    return harness_.Submit(harness_.RunDir(StrCat("run", ++runs_)), steps, std::move(labels));
  }
  std::string Message(const std::string& id) { return harness_.View(id)->job.message; }

  FakeSlurm slurm_;
  Harness harness_;
  int runs_ = 0;
};

TEST_F(SlurmTest, ATrainingSucceedsThroughEveryState) {
  const std::string id = Submit(5);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << Message(id);
  const std::vector<v1::JobEvent> events = harness_.Events(id);
  EXPECT_EQ(Steps(events), Range(5));
  EXPECT_EQ(States(events).front(), "QUEUED");
  EXPECT_EQ(States(events).back(), "SUCCEEDED");
  EXPECT_EQ(slurm_.Jobs(), 1) << "the data is prepared on this node";
  EXPECT_TRUE(harness_.View(id)->devices.empty());
}

TEST_F(SlurmTest, AJobThatIsTooLargeForANodeGetsSeveralAndSrun) {
  harness_.options().slurm.ranks_per_node = 2;
  harness_.Start();
  SubmitRequest request;
  request.spec = testing::MakeSpec(harness_.RunDir("run"), 3);
  request.spec.mftd.ranks = 3;
  const Result<JobViewPtr> view = harness_.Submit(std::move(request));
  ASSERT_TRUE(view.ok()) << view.status().ToString();
  const std::string id = (*view)->job.id;
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << Message(id);
  EXPECT_THAT(slurm_.Calls(), HasSubstr("--nodes=2 --ntasks=3 --ntasks-per-node=2 "));
  const auto attempt =
      ReadAttemptFile(JoinPath(harness_.View(id)->job_dir, "attempts/0001/attempt.json"));
  ASSERT_TRUE(attempt.ok()) << attempt.status().ToString();
  EXPECT_EQ(attempt->ranks_per_node, 2);
  EXPECT_EQ(attempt->srun, JoinPath(slurm_.dir(), "srun"));
  const auto prepared =
      ReadAttemptFile(JoinPath(harness_.View(id)->job_dir, "prepare/0001/attempt.json"));
  ASSERT_TRUE(prepared.ok()) << prepared.status().ToString();
  EXPECT_EQ(prepared->ranks_per_node, 0) << "the data is prepared on this node";
}

TEST_F(SlurmTest, TheNodesOwnCoresDoNotHoldBackWhatSlurmQueues) {
  slurm_.Set("hold");
  harness_.options().cores = 1;
  harness_.options().slurm.max_jobs = 2;
  harness_.Start();
  const std::string first = Submit(3), second = Submit(3), third = Submit(3);
  ASSERT_TRUE(Eventually([&] { return slurm_.Jobs() == 2; }));
  ASSERT_TRUE(Eventually([&] {
    return Message(first).starts_with("waits in Slurm as job ") &&
           Message(second).starts_with("waits in Slurm as job ");
  }));
  EXPECT_THAT(Message(first), HasSubstr("(Priority)"));
  EXPECT_EQ(harness_.View(first)->job.reason, reason::kWaitingForDevices);
  ASSERT_TRUE(harness_.WaitFor(third, JobState::kValidated));
  slurm_.Unset("hold");
  slurm_.Release(1);
  slurm_.Release(2);
  for (const std::string& id : {first, second, third}) {
    ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << Message(id);
  }
  EXPECT_EQ(slurm_.Jobs(), 3);
}

TEST_F(SlurmTest, AWaitingJobIsCancelledWithoutAProcess) {
  slurm_.Set("hold");
  const std::string id = Submit(3);
  ASSERT_TRUE(Eventually([&] { return Message(id).starts_with("waits in Slurm"); }));
  ASSERT_TRUE(harness_.Cancel(id).ok());
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kCancelled));
  EXPECT_FALSE(PathExists(slurm_.JobFile(1, "pid")));
}

TEST_F(SlurmTest, ARunningJobIsToldToStop) {
  const std::string id = Submit(100'000);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRunning));
  ASSERT_TRUE(harness_.Cancel(id).ok());
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kCancelled));
  EXPECT_THAT(slurm_.Calls(), HasSubstr("--batch --signal=TERM 1"));
  EXPECT_EQ(Steps(harness_.Events(id)), Range(harness_.View(id)->job.progress.step));
}

TEST_F(SlurmTest, OneThatDoesNotStopIsKilled) {
  harness_.options().grace_ms = 50;
  harness_.options().kill_margin_ms = 50;
  harness_.Start();
  const std::string id = Submit(100'000, {{"ignore_term", "true"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRunning));
  ASSERT_TRUE(harness_.Cancel(id).ok());
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kCancelled));
  EXPECT_THAT(slurm_.Calls(), HasSubstr("--full --signal=KILL 1"));
}

TEST_F(SlurmTest, AStopFromOutsideIsFollowedByTheNextAttempt) {
  const std::string id = Submit(60, {{"step_ms", "5"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRunning));
  slurm_.Kill(1, SIGTERM);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << Message(id);
  EXPECT_EQ(Steps(harness_.Events(id)), Range(60));
  EXPECT_EQ(harness_.View(id)->job.attempt, 2);
  EXPECT_EQ(harness_.View(id)->job.retries_used, 0);
  EXPECT_EQ(slurm_.Jobs(), 2);
}

TEST_F(SlurmTest, ALostNodeUsesNoRetry) {
  const std::string id = Submit(100'000);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRunning));
  slurm_.Say(1, "NODE_FAIL");
  slurm_.Kill(1, SIGKILL);
  ASSERT_TRUE(Eventually([&] { return slurm_.Jobs() == 2; }));
  EXPECT_EQ(harness_.View(id)->job.retries_used, 0);
  EXPECT_THAT(States(harness_.Events(id)), Contains("RECOVERING"));
}

TEST_F(SlurmTest, OverInSlurmIsNotDeadWhileTheLockIsHeld) {
  const std::string id = Submit(150, {{"step_ms", "5"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRunning));
  slurm_.Say(1, "NODE_FAIL");  // as a node that lost its network, but not its storage
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << Message(id);
  EXPECT_EQ(Steps(harness_.Events(id)), Range(150));
  EXPECT_EQ(slurm_.Jobs(), 1);
}

TEST_F(SlurmTest, ASlurmThatDoesNotAnswerLosesNothing) {
  const std::string id = Submit(30, {{"step_ms", "5"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRunning));
  const std::string dir = harness_.View(id)->attempt_dir;
  slurm_.Set("down");
  ASSERT_TRUE(Eventually([&] { return !*AttemptLockHeld(dir); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // longer than slurm_forget_ms
  EXPECT_EQ(harness_.View(id)->job.state, JobState::kRunning) << "nobody has said that it is over";
  harness_.Start();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_EQ(harness_.View(id)->job.state, JobState::kRunning);
  slurm_.Unset("down");
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << Message(id);
  EXPECT_EQ(Steps(harness_.Events(id)), Range(30));
  EXPECT_EQ(harness_.View(id)->job.attempt, 1);
}

TEST_F(SlurmTest, ARefusedSubmitUsesRetriesAndNamesTheReason) {
  slurm_.Set("refuse");
  const std::string id = Submit(5);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kFailed));
  EXPECT_EQ(harness_.View(id)->job.reason, reason::kStartFailed);
  EXPECT_THAT(Message(id), HasSubstr("Invalid partition name specified"));
  EXPECT_EQ(harness_.View(id)->job.attempt, 3);
}

TEST_F(SlurmTest, AJobWhoseSubmitSeemedToFailCannotRunBesideTheNextAttempt) {
  slurm_.Set("lose");
  const std::string id = Submit(5);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRecovering));
  slurm_.Unset("lose");
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << Message(id);
  const int64_t events = harness_.View(id)->job.last_sequence;
  slurm_.Release(1);
  ASSERT_TRUE(Eventually([&] { return PathExists(slurm_.JobFile(1, "exit")); }));
  EXPECT_NE(ReadFile(slurm_.JobFile(1, "exit")).value(), "0\n") << "its attempt is closed";
  EXPECT_EQ(*FileSize(harness_.View(id)->job_dir + "/attempts/0001/runner.jsonl"), 0);
  EXPECT_EQ(harness_.View(id)->job.last_sequence, events);
}

TEST_F(SlurmTest, AnAttemptWhoseIdWasNotStoredIsFoundByItsName) {
  slurm_.Set("hold");
  const std::string id = Submit(5);
  ASSERT_TRUE(Eventually([&] { return Message(id).starts_with("waits in Slurm"); }));
  const std::string database_path = harness_.loop().database_path();
  harness_.Stop();
  {
    const auto database = Database::Open(database_path, Database::Mode::kReadWrite).value();
    ASSERT_TRUE(database->Script("UPDATE attempts SET slurm_job = '', boot_id = 'before'").ok());
  }
  harness_.Start();
  slurm_.Release(1);
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded)) << "another boot of the daemon's node";
  EXPECT_EQ(harness_.View(id)->job.attempt, 1);
  EXPECT_EQ(slurm_.Jobs(), 1);
}

// Between the commit and sbatch, while sbatch runs, before its answer is stored, while the job
// runs.
TEST_F(SlurmTest, ADaemonKilledAtAnyMomentKeepsItsPromises) {
  const mft::testing::TempDir temp;
  const std::string state = temp.File("state");
  testing::DaemonProcess daemon(state, slurm_.dir());
  std::vector<std::string> ids;
  for (int i = 0; i < 30; ++i) {
    const std::string line =
        StrCat("submit request-", i, " ", temp.File(StrCat("run-", i)), " 4 step_ms=1");
    daemon.Send(line);
    std::this_thread::sleep_for(std::chrono::microseconds(int64_t{i} * 3'000));
    daemon.Kill();
    daemon.Start();
    ids.push_back(daemon.Ask(line));
  }
  int attempts = 0;
  for (const std::string& id : ids) {
    ASSERT_EQ(daemon.Ask("wait " + id), "SUCCEEDED") << id;
    EXPECT_EQ(Steps(testing::ReadEvents(state + "/mftd.db", id)), Range(4)) << id;
    EXPECT_EQ(daemon.Ask("retries " + id), "0") << "a daemon's death is nobody's failure";
    attempts += static_cast<int>(ListDir(state + "/jobs/" + id + "/attempts")->size());
  }
  EXPECT_LE(slurm_.Jobs(), attempts) << "sbatch is called once for an attempt";
}

}  // namespace
}  // namespace mft::server
