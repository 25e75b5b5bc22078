// SPDX-License-Identifier: Apache-2.0
// What a submit refuses, and what it promises.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "server/control/run_dir.h"
#include "server/exec/attempt_dir.h"
#include "server/store/sqlite.h"
#include "tests/server/control/harness.h"

namespace mft::server {
namespace {

using testing::Harness;
using ::testing::HasSubstr;
using testing::MakeSpec;
using ::testing::Not;

class Submit : public ::testing::Test {
 protected:
  Submit() { harness_.Start(); }
  SubmitRequest Request(const std::string& name,
                        std::string request_id = "",
                        std::string hash = "h") {
    SubmitRequest request;
    request.spec = MakeSpec(harness_.RunDir(name), 100'000, {{"prepare", "hang"}});
    request.request_id = std::move(request_id);
    request.request_hash = std::move(hash);
    request.owner = "me";
    return request;
  }
  Harness harness_;
};

TEST_F(Submit, IsDurableWhenItAnswers) {
  const Result<JobViewPtr> view = harness_.Submit(Request("a", "r1", "h1"));
  ASSERT_TRUE(view.ok());
  const Result<JobFile> file = ReadJobFile((*view)->job_dir + "/job.json");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->job_id, (*view)->job.id);
  EXPECT_EQ(file->owner, "me");
  EXPECT_EQ(file->request_id, "r1");
  EXPECT_EQ(file->request_hash, "h1");
  EXPECT_EQ(harness_.Events((*view)->job.id).at(0).state_changed().to(), v1::QUEUED);
}

TEST_F(Submit, AKeyIsAFileForTheOwnerOnlyUntilTheJobHasEnded) {
  SubmitRequest request = Request("a", "r1");
  request.wandb_key = "s3cret";
  const JobViewPtr view = *harness_.Submit(std::move(request));
  const std::string& state_dir = harness_.options().state_dir;
  const std::string path = state_dir + "/secrets/" + view->job.id;
  EXPECT_EQ(ReadFile(path).value(), "s3cret");
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(ReadJobFile(view->job_dir + "/job.json")->secret, "secrets/" + view->job.id);
  EXPECT_THAT(ReadFile(view->job_dir + "/job.json").value(), Not(HasSubstr("s3cret")));
  EXPECT_THAT(ReadFile(state_dir + "/mftd.db").value(), Not(HasSubstr("s3cret")));
  harness_.Start();
  EXPECT_TRUE(PathExists(path));
  ASSERT_TRUE(harness_.Cancel(view->job.id, true).ok());
  ASSERT_TRUE(harness_.WaitFor(view->job.id, JobState::kCancelled));
  EXPECT_FALSE(PathExists(path));
}

TEST_F(Submit, KeysOfJobsThatAreNoMoreAreRemovedAtTheStart) {
  SubmitRequest request = Request("a");
  request.wandb_key = "s3cret";
  const std::string id = (*harness_.Submit(std::move(request)))->job.id;
  ASSERT_TRUE(harness_.Cancel(id, true).ok());
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kCancelled));
  harness_.Stop();
  const std::string secrets = harness_.options().state_dir + "/secrets/";
  ASSERT_TRUE(WriteFileAtomic(secrets + id, "s3cret", 0600).ok());  // died before the removal
  ASSERT_TRUE(WriteFileAtomic(secrets + "jnevermade", "s3cret", 0600).ok());  // before the commit
  harness_.Start();
  EXPECT_THAT(ListDir(secrets).value(), ::testing::IsEmpty());
}

TEST_F(Submit, ARefusedSubmitLeavesNoKey) {
  SubmitRequest request = Request("a");
  request.wandb_key = "s3cret";
  std::filesystem::remove_all(harness_.options().state_dir + "/jobs");
  ASSERT_TRUE(WriteFileAtomic(harness_.options().state_dir + "/jobs", "no directory").ok());
  EXPECT_FALSE(harness_.Submit(std::move(request)).ok());
  EXPECT_THAT(ListDir(harness_.options().state_dir + "/secrets").value(), ::testing::IsEmpty());
}

TEST_F(Submit, TheSameRequestGivesTheSameJobAlsoAfterARestart) {
  const std::string id = (*harness_.Submit(Request("a", "r1")))->job.id;
  EXPECT_EQ((*harness_.Submit(Request("a", "r1")))->job.id, id);
  harness_.Start();
  EXPECT_EQ((*harness_.Submit(Request("a", "r1")))->job.id, id);
  const Status reused = harness_.Submit(Request("b", "r1", "other")).status();
  EXPECT_EQ(reused.code(), Code::kAlreadyExists);
  EXPECT_EQ(reused.reason(), "REQUEST_ID_REUSED");
  EXPECT_THAT(reused.message(), HasSubstr(id));
}

TEST_F(Submit, OneHundredAtOnceWithOneRequestIdAreOneJob) {
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < 100; ++i) {
    auto answer = std::make_shared<std::promise<std::string>>();
    answers.push_back(answer->get_future());
    harness_.loop().Submit(Request("a", "r1"), [answer](const Result<JobViewPtr>& view) {
      answer->set_value(view.ok() ? (*view)->job.id : view.status().ToString());
    });
  }
  std::set<std::string> ids;
  for (auto& answer : answers) {
    ids.insert(answer.get());
  }
  EXPECT_EQ(ids.size(), 1u);
  EXPECT_EQ(harness_.loop().snapshot()->jobs.size(), 1u);
}

TEST_F(Submit, ARunDirBelongsToOneUnfinishedJob) {
  const std::string id = (*harness_.Submit(Request("a")))->job.id;
  const Status refused = harness_.Submit(Request("a")).status();
  EXPECT_EQ(refused.code(), Code::kAlreadyExists);
  EXPECT_EQ(refused.reason(), "RUN_DIR_IN_USE");
  EXPECT_THAT(refused.message(), HasSubstr(id));
  ASSERT_TRUE(harness_.Cancel(id).ok());
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kCancelled));
  EXPECT_TRUE(harness_.Submit(Request("a")).ok());
}

TEST_F(Submit, ARunDirWithSomethingInItIsRefusedAndLeftAlone) {
  ASSERT_TRUE(MakeDirs(harness_.RunDir("a")).ok());
  ASSERT_TRUE(WriteFileAtomic(harness_.RunDir("a") + "/notes.txt", "mine").ok());
  const Status refused = harness_.Submit(Request("a")).status();
  EXPECT_EQ(refused.reason(), "RUN_DIR_IN_USE");
  EXPECT_THAT(refused.message(), HasSubstr("is not empty (it has notes.txt)"));
  EXPECT_FALSE(PathExists(harness_.RunDir("a") + "/.mft.json"));
  EXPECT_TRUE(harness_.loop().snapshot()->jobs.empty());
}

TEST_F(Submit, ARunDirOfAnotherDaemonsJobIsRefused) {
  const std::string other_state = harness_.RunDir("other_state");
  ASSERT_TRUE(MakeDirs(other_state + "/jobs/jother").ok());
  const RunDirClaim other{
      .run_dir = harness_.RunDir("a"), .job_id = "jother", .state_dir = other_state};
  ASSERT_TRUE(ClaimRunDir(other).ok());
  EXPECT_EQ(harness_.Submit(Request("a")).status().reason(), "RUN_DIR_IN_USE");
  ASSERT_TRUE(RemoveTree(other_state).ok());
  EXPECT_TRUE(harness_.Submit(Request("a")).ok()) << "a claim of a daemon that is gone";
}

TEST_F(Submit, ARunDirThatCannotBeMadeIsNamed) {
  ASSERT_TRUE(MakeDirs(harness_.RunDir("")).ok());
  ASSERT_TRUE(WriteFileAtomic(harness_.RunDir("file"), "x").ok());
  const Status refused = harness_.Submit(Request("file/below")).status();
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(refused.message(), HasSubstr("file"));
  EXPECT_TRUE(ListDir(harness_.options().state_dir + "/jobs")->empty()) << "nothing stays behind";
}

TEST_F(Submit, ValidateOnlyChecksAndCreatesNothing) {
  SubmitRequest request = Request("a");
  request.validate_only = true;
  const Result<JobViewPtr> checked = harness_.Submit(request);
  ASSERT_TRUE(checked.ok());
  EXPECT_EQ(*checked, nullptr);
  EXPECT_FALSE(PathExists(harness_.RunDir("a")));
  EXPECT_TRUE(harness_.loop().snapshot()->jobs.empty());
  ASSERT_TRUE(harness_.Submit(Request("a")).ok());
  EXPECT_EQ(harness_.Submit(request).status().reason(), "RUN_DIR_IN_USE");
}

TEST_F(Submit, AJobThatTheNodeCanNeverRunIsRefused) {
  SubmitRequest request = Request("a");
  request.spec.mftd.device = "cuda";
  const Status refused = harness_.Submit(request).status();
  EXPECT_EQ(refused.code(), Code::kResourceExhausted);
  EXPECT_EQ(refused.reason(), "NOT_ENOUGH_DEVICES");
}

TEST_F(Submit, CommandsAfterShutdownAreUnavailable) {
  harness_.loop().Shutdown();
  EXPECT_EQ(harness_.Submit(Request("a")).status().code(), Code::kUnavailable);
  EXPECT_EQ(harness_.Cancel("j").status().code(), Code::kUnavailable);
}

TEST_F(Submit, ASecondDaemonOnTheSameStateIsRefused) {
  const Status refused = ControlLoop::Create(harness_.options()).status();
  EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_EQ(refused.reason(), "STATE_DIR_IN_USE");
  EXPECT_EQ(ExitCodeFor(refused.code()), 6);
  EXPECT_THAT(refused.message(), HasSubstr(harness_.options().state_dir));
}

// Somebody else's write lock stands in for a full disk: both refuse a commit and pass.
TEST_F(Submit, IsRefusedWhileTheStateCannotBeWrittenAndRunningJobsGoOn) {
  harness_.options().probe_ms = 50;
  harness_.Start();
  const std::string id = harness_.Submit(harness_.RunDir("a"), 100, {{"step_ms", "2"}});
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kRunning));
  const auto other =
      Database::Open(harness_.loop().database_path(), Database::Mode::kReadWrite).value();
  ASSERT_TRUE(other->Script("BEGIN IMMEDIATE").ok());
  const std::string dir = harness_.View(id)->attempt_dir;
  EXPECT_TRUE(
      testing::Eventually([&] { return !harness_.loop().snapshot()->admission_closed.empty(); }));
  const Status refused = harness_.Submit(Request("b")).status();
  EXPECT_EQ(refused.reason(), kStateBusy);
  EXPECT_TRUE(testing::Eventually([&] { return !*AttemptLockHeld(dir); }))
      << "the job goes on to its end";
  EXPECT_EQ(harness_.View(id)->job.state, JobState::kRunning)
      << "which nobody hears of before it is durable";
  ASSERT_TRUE(other->Script("ROLLBACK").ok());
  ASSERT_TRUE(harness_.WaitFor(id, JobState::kSucceeded));
  EXPECT_EQ(testing::Steps(harness_.Events(id)).size(), 100u);
  EXPECT_TRUE(harness_.Submit(Request("b")).ok());
}

TEST_F(Submit, SlotsForConversationsCountAgainstTheCores) {
  const auto acquire = [this](int cores) {
    auto answer = std::make_shared<std::promise<Result<Slot>>>();
    auto result = answer->get_future();
    harness_.loop().AcquireSlot(
        {.device = "cpu", .cores = cores, .holder = "j1"},
        [answer](Result<Slot> slot) { answer->set_value(std::move(slot)); });
    return result.get();
  };
  const Result<Slot> first = acquire(3);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->lease.cores, 3);
  const Result<Slot> second = acquire(3);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->lease.cores, 1) << "what is left";
  EXPECT_EQ(acquire(1).status().reason(), "NO_FREE_SLOT");
  harness_.loop().ReleaseSlot(first->id);
  EXPECT_TRUE(acquire(1).ok());
}

}  // namespace
}  // namespace mft::server
