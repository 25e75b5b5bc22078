// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include <gtest/gtest.h>

#include "common/base/ids.h"
#include "common/base/processes.h"
#include "common/base/strings.h"
#include "server/exec/adoption.h"
#include "server/exec/attempt_dir.h"
#include "server/exec/spawner.h"
#include "server/exec/stop_ladder.h"
#include "tests/support/temp_dir.h"

namespace mft::server {
namespace {

// A stand-in for mft-runner: a shell script that says what it was given and then does as told.
class SpawnTest : public ::testing::Test {
 protected:
  SpawnTest() {
    dir_ = temp_.File("attempts/0001");
    EXPECT_TRUE(CreateAttemptDir(dir_, AttemptFile{.attempt = 1, .attempt_id = id_}).ok());
  }
  ~SpawnTest() override { KillAll(); }

  // Two empty scans: the environment of a process in the middle of its exec cannot be read.
  void KillAll() {
    for (int empty = 0; empty < 2;) {
      empty = KillAttemptProcesses(id_) == 0 ? empty + 1 : 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  std::string Script(const std::string& body) {
    const std::string path = temp_.Write("mft-runner", "#!/bin/bash\n" + body);
    EXPECT_EQ(chmod(path.c_str(), 0755), 0);
    return path;
  }

  Result<AttemptProcess> Spawn(const std::string& body, std::vector<UniqueFd> gpu_locks = {}) {
    return SpawnRunner({.runner = Script(body),
                        .attempt_dir = dir_,
                        .attempt_id = id_,
                        .gpu_locks = std::move(gpu_locks)});
  }

  static bool WaitForExit(const AttemptProcess& process) {
    pollfd fd{.fd = process.pidfd.get(), .events = POLLIN, .revents = 0};
    const bool ended = poll(&fd, 1, 20'000) == 1;
    ReapIfChild(process.pidfd);
    return ended;
  }

  std::string WaitForFile(const std::string& name) {
    for (int i = 0; i < 2000 && !PathExists(JoinPath(dir_, name)); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return ReadFile(JoinPath(dir_, name)).value();
  }

  testing::TempDir temp_;
  const std::string id_ = RandomHex(16);
  std::string dir_;
};

TEST_F(SpawnTest, TheRunnerHoldsTheLockUntilItDies) {
  EXPECT_FALSE(*AttemptLockHeld(dir_));
  const Result<AttemptProcess> process = Spawn("sleep 60");
  ASSERT_TRUE(process.ok()) << process.status().ToString();
  EXPECT_TRUE(*AttemptLockHeld(dir_));
  KillAll();
  EXPECT_TRUE(WaitForExit(*process));
  EXPECT_FALSE(*AttemptLockHeld(dir_));
}

TEST_F(SpawnTest, StartsTheRunnerWithItsArgumentsInACleanProcess) {
  const Result<AttemptProcess> process = Spawn("echo \"$*\" > \"$2/said\"; exec sleep 60");
  ASSERT_TRUE(process.ok()) << process.status().ToString();
  const std::string proc = StrCat("/proc/", process->pid, "/");
  // A new program has its name a moment before its environment, and opens its libraries.
  const std::vector<std::string> standard_and_lock = {"0", "1", "2", "3"};
  const auto has_started = [&] {
    return ReadFile(proc + "comm").value() == "sleep\n" &&
           !ReadFile(proc + "environ").value().empty() &&
           ListDir(proc + "fd").value() == standard_and_lock;
  };
  for (int i = 0; i < 2000 && !has_started(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(ReadFile(JoinPath(dir_, "said")).value(),
            StrCat("--attempt-dir ", dir_, " --lock-fd 3\n"));
  EXPECT_EQ(ListDir(proc + "fd").value(), standard_and_lock);
  EXPECT_EQ(getsid(process->pid), process->pid) << "the runner leads a session of its own";
  EXPECT_NE(ReadFile(proc + "environ").value().find("MFT_ATTEMPT=" + id_), std::string::npos);
  EXPECT_NE(ReadFile(proc + "status").value().find("SigBlk:\t0000000000004200\n"),
            std::string::npos)
      << "SIGUSR1 and SIGTERM wait until the runner handles them";
}

TEST_F(SpawnTest, ASecondRunnerOfTheSameAttemptIsRefused) {
  const Result<AttemptProcess> first = Spawn("sleep 60");
  ASSERT_TRUE(first.ok());
  const Result<AttemptProcess> second = Spawn("sleep 60");
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().reason(), "ATTEMPT_LOCKED");
}

TEST_F(SpawnTest, TheSecretIsTheLastDescriptor) {
  const std::string key = temp_.Write("key", "s3cret");
  SpawnOptions options{
      .runner = Script("echo \"$5 $6\" > \"$2/arguments\"; head -c 6 <&$6 > \"$2/tmp\"; "
                       "mv \"$2/tmp\" \"$2/secret\"; sleep 60"),
      .attempt_dir = dir_,
      .attempt_id = id_};
  options.gpu_locks.push_back(OpenFile(temp_.Write("gpu", ""), O_RDONLY).value());
  options.secret = OpenFile(key, O_RDONLY).value();
  const Result<AttemptProcess> process = SpawnRunner(std::move(options));
  ASSERT_TRUE(process.ok());
  EXPECT_EQ(WaitForFile("secret"), "s3cret");
  EXPECT_EQ(WaitForFile("arguments"), "--secret-fd 5\n");
  KillAll();
}

TEST_F(SpawnTest, AMissingRunnerIsNamed) {
  const Result<AttemptProcess> process = SpawnRunner({.runner = temp_.File("nowhere/mft-runner"),
                                                      .attempt_dir = dir_,
                                                      .attempt_id = id_,
                                                      .gpu_locks = {}});
  ASSERT_FALSE(process.ok());
  EXPECT_NE(process.status().message().find("nowhere/mft-runner"), std::string::npos);
  EXPECT_FALSE(*AttemptLockHeld(dir_)) << "a runner that never was holds nothing";
}

TEST_F(SpawnTest, KillsEveryProcessOfTheAttemptAlsoThoseThatLeftItsSession) {
  const Result<AttemptProcess> process = Spawn(
      "setsid sleep 60 & (setsid bash -c 'sleep 60 & sleep 60' &) ; touch \"$2/up\"; sleep 60");
  ASSERT_TRUE(process.ok());
  WaitForFile("up");
  for (int i = 0; i < 2000 && FindAttemptProcesses(id_).size() < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GE(FindAttemptProcesses(id_).size(), 5u);
  KillAll();
  EXPECT_TRUE(FindAttemptProcesses(id_).empty());
  EXPECT_TRUE(WaitForExit(*process));
}

TEST_F(SpawnTest, FindsTheRunnerAgainAmongItsChildren) {
  const Result<AttemptProcess> process = Spawn("sleep 60 & sleep 60 & touch \"$2/up\"; wait");
  ASSERT_TRUE(process.ok());
  WaitForFile("up");
  const std::optional<AttemptProcess> found = FindRunner(id_);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->pid, process->pid);
  EXPECT_TRUE(OpenRunner(id_, found->pid, found->start_ticks));
  EXPECT_FALSE(OpenRunner(id_, found->pid, found->start_ticks + 1))
      << "another process with the same pid";
  EXPECT_FALSE(OpenRunner(RandomHex(16), found->pid, found->start_ticks));
  EXPECT_FALSE(OpenRunner(id_, getpid(), found->start_ticks));
}

TEST_F(SpawnTest, GpuLocksGoToTheRunnerAndComeBackWithItsDeath) {
  const std::string locks = temp_.File("locks");
  ASSERT_TRUE(MakeDirs(locks).ok());
  Result<std::vector<UniqueFd>> held = LockGpus(locks, {"GPU-a", "GPU-b"});
  ASSERT_TRUE(held.ok()) << held.status().ToString();
  const Result<AttemptProcess> process = Spawn("sleep 60", std::move(held).value());
  ASSERT_TRUE(process.ok());
  const Status refused = LockGpus(locks, {"GPU-c", "GPU-b"}).status();
  EXPECT_EQ(refused.reason(), "GPU_LOCKED");
  EXPECT_NE(refused.message().find("GPU-b"), std::string::npos);
  EXPECT_TRUE(LockGpus(locks, {"GPU-c"}).ok()) << "none is kept after a refusal";
  KillAll();
  ASSERT_TRUE(WaitForExit(*process));
  EXPECT_TRUE(LockGpus(locks, {"GPU-a", "GPU-b"}).ok());
}

TEST(AttemptDir, IsMadeOnce) {
  const testing::TempDir temp;
  const AttemptFile file{.attempt = 3, .attempt_id = "abc"};
  ASSERT_TRUE(CreateAttemptDir(temp.File("a/b/0003"), file).ok());
  const Result<AttemptFile> read = ReadAttemptFile(temp.File("a/b/0003/attempt.json"));
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->attempt, 3);
  EXPECT_EQ(CreateAttemptDir(temp.File("a/b/0003"), file).code(), Code::kAlreadyExists);
}

TEST(AttemptDir, NobodyLivesInAMissingOne) {
  const testing::TempDir temp;
  EXPECT_FALSE(*AttemptLockHeld(temp.File("gone")));
}

TEST(AttemptDir, IsClosedWhereNobodyLives) {
  const testing::TempDir temp;
  const std::string dir = temp.File("0001");
  ASSERT_TRUE(CreateAttemptDir(dir, AttemptFile{.attempt = 1, .attempt_id = "abc"}).ok());
  {
    const Result<UniqueFd> runner = TryLockFile(JoinPath(dir, kAttemptLockName));
    ASSERT_TRUE(runner.ok() && runner->valid());
    EXPECT_TRUE(*AttemptLivesElseClose(dir));
    EXPECT_FALSE(PathExists(JoinPath(dir, kRunnerJournalName))) << "a living one is left alone";
  }
  EXPECT_FALSE(*AttemptLivesElseClose(dir));
  EXPECT_EQ(*FileSize(JoinPath(dir, kRunnerJournalName)), 0) << "a late runner refuses this";
  ASSERT_TRUE(WriteFileAtomic(JoinPath(dir, kRunnerJournalName), "words").ok());
  EXPECT_FALSE(*AttemptLivesElseClose(dir));
  EXPECT_EQ(*ReadFile(JoinPath(dir, kRunnerJournalName)), "words");
  EXPECT_FALSE(*AttemptLivesElseClose(temp.File("gone")));
}

constexpr int64_t kMilli = 1000;

TEST(StopLadder, TerminatesOnceAndKillsAfterGraceAndMargin) {
  StopState state{.stop_wanted = true, .grace_ms = 2000, .margin_ms = 500};
  EXPECT_EQ(NextStopAction(state, 7), StopAction::kTerminate);
  state.terminated_micros = 1;
  EXPECT_EQ(NextStopAction(state, 2499 * kMilli), StopAction::kNone);
  EXPECT_EQ(NextStopAction(state, 2500 * kMilli + 1), StopAction::kKill);
}

TEST(StopLadder, KillsAtOnceWhenToldTo) {
  const StopState state{
      .stop_wanted = true, .kill_wanted = true, .grace_ms = 2000, .margin_ms = 500};
  EXPECT_EQ(NextStopAction(state, 7), StopAction::kKill);
}

TEST(StopLadder, LeavesTheTimeLimitToTheRunnerAsLongAsItKeepsIt) {
  const StopState state{
      .started_micros = 1000 * kMilli, .grace_ms = 2000, .time_limit_ms = 5000, .margin_ms = 500};
  EXPECT_EQ(NextStopAction(state, 8499 * kMilli), StopAction::kNone);
  EXPECT_EQ(NextStopAction(state, 8500 * kMilli), StopAction::kKill);
}

TEST(StopLadder, LetsAnUndisturbedAttemptRun) {
  EXPECT_EQ(NextStopAction({.grace_ms = 2000, .margin_ms = 500}, 1'000'000 * kMilli),
            StopAction::kNone);
}

}  // namespace
}  // namespace mft::server
