// SPDX-License-Identifier: Apache-2.0
// The real mft-runner over fake ranks (tests/support/README.md).
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/processes.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"
#include "common/journal/ends.h"
#include "common/journal/tailer.h"
#include "tests/support/temp_dir.h"

namespace mft::runner {

// Waits for something that other processes do.
inline bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class RunnerTest : public ::testing::Test {
 protected:
  ~RunnerTest() override {
    while (KillAttemptProcesses(attempt_.attempt_id) > 0) {
    }
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  void Write(const std::string& script, int ranks = 1) {
    attempt_.ranks = ranks;
    attempt_.cache_root = dir_.File("cache");
    std::filesystem::create_directories(attempt_dir_);
    const Json labels = {{"fake", script}};
    const Json spec = {{"run_dir", run_dir_},
                       {"max_steps", 10},
                       {"wandb", {{"project", "p"}, {"offline", false}}},
                       {"mftd", {{"labels", labels}}}};
    dir_.Write("job/job.json", DumpJson({{"version", 1}, {"job_id", "jx"}, {"spec", spec}}));
    ASSERT_TRUE(WriteAttemptFile(attempt_dir_ + "/attempt.json", attempt_).ok());
  }

  // As the daemon does it: the lock is held by the runner alone.
  void Start(std::vector<std::string> more = {}) {
    UniqueFd lock = TryLockFile(attempt_dir_ + "/lock").value();
    ASSERT_TRUE(lock.valid());
    std::vector<std::string> arguments = {std::string(MFT_FAKE_BIN_DIR) + "/mft-runner",
                                          "--attempt-dir",
                                          attempt_dir_,
                                          "--lock-fd",
                                          "3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const UniqueFd secret = secret_.empty() ? UniqueFd() : OpenFile(secret_, O_RDONLY).value();
    if (secret.valid()) {
      arguments.insert(arguments.end(), {"--secret-fd", std::to_string(secret.get())});
    }
    const std::string log = attempt_dir_ + "/runner.log";
    pid_ = fork();
    if (pid_ == 0) {
      const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
      dup2(out, 1);
      dup2(out, 2);
      lock.get() == 3 ? fcntl(3, F_SETFD, 0) : dup2(lock.get(), 3);
      if (secret.valid()) {
        fcntl(secret.get(), F_SETFD, 0);
      }
      setenv("MFT_ATTEMPT", attempt_.attempt_id.c_str(), 1);
      for (const auto& [name, value] : environment_) {
        setenv(name.c_str(), value.c_str(), 1);
      }
      std::vector<char*> argv;
      for (std::string& argument : arguments) {
        argv.push_back(argument.data());
      }
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }

  // Exit code of the runner, -1 if it does not end.
  int Wait() {
    int status = 0;
    if (!Eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) {
      return -1;
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

  int Run(const std::string& script, int ranks = 1) {
    Write(script, ranks);
    Start();
    return Wait();
  }

  ResultRecord Outcome() {
    const auto ends = ReadJournalEnds(attempt_dir_ + "/runner.jsonl");
    if (!ends.ok() || !ends->last || !std::holds_alternative<ResultRecord>(ends->last->body)) {
      ADD_FAILURE() << "no result; " << ReadFile(attempt_dir_ + "/runner.log").value();
      return {};
    }
    return std::get<ResultRecord>(ends->last->body);
  }

  std::string Journal(int rank) { return StrCat(attempt_dir_, "/rank-", rank, ".jsonl"); }
  bool JournalHas(int rank, const std::string& text) {
    const auto content = ReadFile(Journal(rank));
    return content.ok() && content->find(text) != std::string::npos;
  }
  bool Trains(int rank) { return JournalHas(rank, "\"training\""); }
  bool LockIsFree() { return TryLockFile(attempt_dir_ + "/lock").value().valid(); }

  mft::testing::TempDir dir_;
  std::string attempt_dir_ = dir_.File("job/attempts/0001");
  std::string run_dir_ = dir_.File("run");
  AttemptFile attempt_ = {.attempt = 1, .attempt_id = RandomHex(8), .grace_ms = 20'000};
  std::string secret_;                              // file behind --secret-fd; "": none
  std::map<std::string, std::string> environment_;  // of the runner
  pid_t pid_ = -1;
};

}  // namespace mft::runner
