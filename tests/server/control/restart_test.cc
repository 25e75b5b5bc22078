// SPDX-License-Identifier: Apache-2.0
// A daemon that stops, or is killed, at any moment: jobs go on, nothing is lost, nothing happens
// twice.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <numeric>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/processes.h"
#include "common/base/strings.h"
#include "server/exec/attempt_dir.h"
#include "server/store/sqlite.h"
#include "tests/server/control/daemon_process.h"
#include "tests/server/control/harness.h"

namespace mft::server {
namespace {

using ::testing::Contains;
using testing::DaemonProcess;
using ::testing::ElementsAre;
using testing::Eventually;
using testing::Harness;
using testing::Labels;
using testing::MakeSpec;
using testing::States;
using testing::Steps;

std::vector<int64_t> Range(int64_t last) {
  std::vector<int64_t> range(static_cast<size_t>(last));
  std::iota(range.begin(), range.end(), 1);
  return range;
}

std::string AttemptIdOf(const JobViewPtr& view) {
  return ReadAttemptFile(view->attempt_dir + "/attempt.json")->attempt_id;
}

TEST(Restart, AnAttemptGoesOnWithoutTheDaemonAndIsFoundAgain) {
  Harness harness;
  harness.Start();
  const std::string id = harness.Submit(harness.RunDir("a"), 100, {{"step_ms", "5"}});
  ASSERT_TRUE(harness.WaitFor(id, JobState::kRunning));
  EXPECT_THAT(harness.loop().Shutdown(), ElementsAre(id));
  harness.Start();
  EXPECT_EQ(harness.loop().snapshot()->stats.adopted_attempts, 1);
  ASSERT_TRUE(harness.WaitFor(id, JobState::kSucceeded));
  EXPECT_EQ(Steps(harness.Events(id)), Range(100));
  EXPECT_EQ(harness.View(id)->job.attempt, 1);
}

TEST(Restart, AnAttemptThatEndedMeanwhileIsReadToItsEnd) {
  Harness harness;
  harness.Start();
  const std::string id = harness.Submit(harness.RunDir("a"), 30);
  ASSERT_TRUE(harness.WaitFor(id, JobState::kRunning));
  const std::string dir = harness.View(id)->attempt_dir;
  harness.Stop();
  ASSERT_TRUE(Eventually([&] { return !*AttemptLockHeld(dir); }));
  harness.Start();
  ASSERT_TRUE(harness.WaitFor(id, JobState::kSucceeded));
  EXPECT_EQ(Steps(harness.Events(id)), Range(30));
}

TEST(Restart, ARunnerThatDiedMeanwhileIsLost) {
  Harness harness;
  harness.Start();
  const std::string id = harness.Submit(harness.RunDir("a"), 40, {{"step_ms", "5"}});
  ASSERT_TRUE(harness.WaitFor(id, JobState::kRunning));
  const std::string attempt_id = AttemptIdOf(harness.View(id));
  harness.Stop();
  KillAttemptProcesses(attempt_id);
  harness.Start();
  ASSERT_TRUE(harness.WaitFor(id, JobState::kSucceeded));
  EXPECT_EQ(harness.View(id)->job.attempt, 2);
  EXPECT_EQ(harness.View(id)->job.retries_used, 1);
  EXPECT_THAT(States(harness.Events(id)), Contains("RECOVERING"));
}

TEST(Restart, AnAttemptOfAnotherBootUsesNoRetry) {
  Harness harness;
  harness.Start();
  const std::string id = harness.Submit(harness.RunDir("a"), 40, {{"step_ms", "5"}});
  ASSERT_TRUE(harness.WaitFor(id, JobState::kRunning));
  const std::string attempt_id = AttemptIdOf(harness.View(id));
  const std::string database_path = harness.loop().database_path();
  harness.Stop();
  while (KillAttemptProcesses(attempt_id) > 0) {
  }
  {
    const auto database = Database::Open(database_path, Database::Mode::kReadWrite).value();
    ASSERT_TRUE(
        database->Run("UPDATE attempts SET boot_id = 'before' WHERE id = ?", attempt_id).ok());
  }
  harness.Start();
  ASSERT_TRUE(harness.WaitFor(id, JobState::kSucceeded));
  EXPECT_EQ(harness.View(id)->job.attempt, 2);
  EXPECT_EQ(harness.View(id)->job.retries_used, 0);
}

TEST(Restart, AnAttemptWhoseRunnerNeverStartedUsesNoRetry) {
  Harness harness;
  harness.Start();
  const std::string id = harness.Submit(harness.RunDir("a"), 5, {{"prepare", "hang"}});
  ASSERT_TRUE(harness.WaitFor(id, JobState::kValidating));
  const JobViewPtr view = harness.View(id);
  const std::string database_path = harness.loop().database_path();
  harness.Stop();
  const std::string attempt_id = AttemptIdOf(view);
  while (KillAttemptProcesses(attempt_id) > 0) {
  }
  // As a daemon leaves it that dies between the commit and the start of the runner.
  for (const char* name : {"/runner.jsonl", "/rank-0.jsonl", "/lock"}) {
    unlink((view->attempt_dir + name).c_str());
  }
  {
    const auto database = Database::Open(database_path, Database::Mode::kReadWrite).value();
    ASSERT_TRUE(database->Script("UPDATE attempts SET pid = 0; DELETE FROM journals").ok());
  }
  harness.Start();
  ASSERT_TRUE(Eventually([&] { return harness.View(id)->job.prepare_attempt == 2; }));
  EXPECT_EQ(harness.View(id)->job.retries_used, 0);
}

TEST(Restart, ACommittedCancelIsCarriedOut) {
  Harness harness;
  harness.options().grace_ms = 50;
  harness.options().kill_margin_ms = 50;
  harness.Start();
  const std::string id = harness.Submit(harness.RunDir("a"), 100'000, {{"ignore_term", "true"}});
  ASSERT_TRUE(harness.WaitFor(id, JobState::kRunning));
  ASSERT_TRUE(harness.Cancel(id).ok());
  harness.Start();
  ASSERT_TRUE(harness.WaitFor(id, JobState::kCancelled))
      << "a runner that does not stop is killed after grace and margin";
}

TEST(Restart, AJobWithoutItsFileFailsAndTheDaemonStaysUp) {
  Harness harness;
  harness.options().cores = 1;
  harness.Start();
  const std::string first = harness.Submit(harness.RunDir("a"), 100'000);
  ASSERT_TRUE(harness.WaitFor(first, JobState::kRunning));
  const std::string second = harness.Submit(harness.RunDir("b"), 5);
  ASSERT_TRUE(harness.WaitFor(second, JobState::kValidated));
  const std::string path = harness.View(second)->job_dir + "/job.json";
  harness.Stop();
  ASSERT_TRUE(WriteFileAtomic(path, "{broken").ok());
  harness.Start();
  ASSERT_TRUE(harness.Cancel(first).ok());
  ASSERT_TRUE(harness.WaitFor(second, JobState::kFailed));
  EXPECT_EQ(harness.View(second)->job.reason, reason::kJobFileUnreadable);
}

TEST(Restart, ALostTokenCacheIsMadeAgain) {
  Harness harness;
  harness.options().cores = 1;
  harness.Start();
  const std::string first = harness.Submit(harness.RunDir("a"), 100'000);
  ASSERT_TRUE(harness.WaitFor(first, JobState::kRunning));
  const std::string second = harness.Submit(harness.RunDir("b"), 5);
  ASSERT_TRUE(harness.WaitFor(second, JobState::kValidated));
  ASSERT_TRUE(RemoveTree(harness.View(second)->job.data_cache).ok());
  ASSERT_TRUE(harness.Cancel(first).ok());
  ASSERT_TRUE(harness.WaitFor(second, JobState::kSucceeded));
  EXPECT_EQ(harness.View(second)->job.prepare_attempt, 2);
}

TEST(Journal, DamageBecomesOneEventAndReadingGoesOn) {
  Harness harness;
  harness.Start();
  const std::string id = harness.Submit(harness.RunDir("a"), 5, {{"prepare", "hang"}});
  ASSERT_TRUE(harness.WaitFor(id, JobState::kValidating));
  const std::string path = harness.View(id)->attempt_dir + "/rank-0.jsonl";
  ASSERT_TRUE(Eventually([&] {
    const Result<std::string> text = ReadFile(path);
    return text.ok() && text->find("validating data") != std::string::npos && text->back() == '\n';
  }));
  {
    const UniqueFd fd = OpenFile(path, O_WRONLY | O_APPEND).value();
    ASSERT_TRUE(
        WriteAll(
            fd.get(),
            "no "
            "json\n{\"seq\":3,\"at\":1,\"type\":\"message\",\"level\":\"info\",\"text\":\"on\"}\n",
            path)
            .ok());
  }
  const auto count = [&](auto has) {
    const std::vector<v1::JobEvent> events = harness.Events(id);
    return std::count_if(events.begin(), events.end(), has);
  };
  ASSERT_TRUE(Eventually(
      [&] { return count([](const v1::JobEvent& event) { return event.has_message(); }) == 1; }));
  EXPECT_EQ(count([](const v1::JobEvent& event) { return event.has_journal_damaged(); }), 1);
}

void SleepMicros(int64_t micros) {
  std::this_thread::sleep_for(std::chrono::microseconds(micros));
}

TEST(Kill, ADaemonKilledTwentyTimesDuringOneJobLosesAndRepeatsNothing) {
  const mft::testing::TempDir temp;
  const std::string state = temp.File("state");
  DaemonProcess daemon(state);
  const std::string id = daemon.Ask(StrCat("submit r1 ", temp.File("run"), " 600 step_ms=4"));
  ASSERT_TRUE(IsValidJobId(id)) << id;
  std::mt19937 random(1);
  for (int i = 0; i < 20; ++i) {
    SleepMicros(std::uniform_int_distribution<int64_t>(0, 120'000)(random));
    daemon.Kill();
    daemon.Start();
  }
  ASSERT_EQ(daemon.Ask("wait " + id), "SUCCEEDED");
  const std::vector<v1::JobEvent> events = testing::ReadEvents(state + "/mftd.db", id);
  EXPECT_EQ(Steps(events), Range(600));
  EXPECT_EQ(States(events).back(), "SUCCEEDED");
  EXPECT_EQ(daemon.Ask("retries " + id), "0") << "a daemon's death is nobody's failure";
  int trainings = 0;
  for (const v1::JobEvent& event : events) {
    trainings += event.has_attempt_started() && event.attempt_started().kind() == "train" ? 1 : 0;
    if (event.has_state_changed() && event.state_changed().to() == v1::RECOVERING) {
      // Killed between the commit of an attempt and the start of its runner.
      EXPECT_EQ(event.state_changed().reason(), reason::kInterrupted);
    }
  }
  EXPECT_EQ(trainings, 1);
}

// Kills over the short life of many jobs hit every moment: before and after the commit of the
// submit, between an attempt's commit and its runner, while its end is written.
TEST(Kill, ADaemonKilledAtAnyMomentKeepsItsPromises) {
  const mft::testing::TempDir temp;
  const std::string state = temp.File("state");
  DaemonProcess daemon(state);
  std::vector<std::string> ids;
  for (int i = 0; i < 40; ++i) {
    const std::string line =
        StrCat("submit request-", i, " ", temp.File(StrCat("run-", i)), " 4 step_ms=1");
    daemon.Send(line);
    SleepMicros(int64_t{i} * 1'200);
    daemon.Kill();
    const std::string acknowledged = daemon.ReadLine();
    daemon.Start();
    // The client that heard nothing asks again with the same request id.
    const std::string id = daemon.Ask(line);
    ASSERT_TRUE(IsValidJobId(id)) << id;
    if (!acknowledged.empty()) {
      EXPECT_EQ(id, acknowledged) << "an acknowledged submit is not lost";
    }
    ids.push_back(id);
  }
  for (const std::string& id : ids) {
    ASSERT_EQ(daemon.Ask("wait " + id), "SUCCEEDED") << id;
    const std::vector<v1::JobEvent> events = testing::ReadEvents(state + "/mftd.db", id);
    EXPECT_EQ(Steps(events), Range(4)) << id;
    EXPECT_EQ(daemon.Ask("retries " + id), "0") << "a daemon's death is nobody's failure";
  }
}

}  // namespace
}  // namespace mft::server
