// SPDX-License-Identifier: Apache-2.0
// mft-data prepare killed at any moment, and several of it at once, over one cache directory.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/config/job_file.h"
#include "common/dataset/token_cache.h"
#include "tests/worker/data/prepare_fixture.h"

namespace mft {
namespace {

using std::chrono::steady_clock;
using ::testing::SizeIs;

class PrepareCrash : public testing::PrepareFixture {
 protected:
  PrepareCrash() {
    std::string lines;
    for (int i = 0; i < 20'000; ++i) {
      lines += StrCat(R"({"tokens": [1, )", i, R"(, 2], "mask": [0, 1, 1]})", "\n");
    }
    spec_.data.instruct_data = dir_.Write("a.jsonl", lines);
    EXPECT_TRUE(WriteJobFile(dir_.File("job.json"), {.job_id = "j", .spec = spec_}).ok());
  }

  pid_t Start() {
    const std::string attempt = dir_.File(StrCat("prepare/", ++attempts_));
    EXPECT_TRUE(MakeDirs(attempt).ok());
    EXPECT_TRUE(WriteAttemptFile(attempt + "/attempt.json",
                                 {.attempt = 1,
                                  .attempt_id = "id-1",
                                  .kind = AttemptKind::kPrepare,
                                  .threads = 2,
                                  .cache_root = Root()})
                    .ok());
    const std::string program = std::string(MFT_BIN_DIR) + "/mft-data";
    const std::string job = dir_.File("job.json");
    const std::string err = dir_.File("err");
    const pid_t child = fork();
    if (child == 0) {
      dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), STDERR_FILENO);
      execl(program.c_str(),
            program.c_str(),
            "prepare",
            "--job",
            job.c_str(),
            "--attempt-dir",
            attempt.c_str(),
            nullptr);
      _exit(127);
    }
    return child;
  }
  static int Wait(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string Root() const { return dir_.File("cache"); }

  // Whatever is published can be opened and is whole.
  std::vector<std::string> Published() const {
    std::vector<std::string> published;
    const auto names = ListDir(Root());
    for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
      if (name.size() == 64) {
        const auto cache = TokenCache::Open(JoinPath(Root(), name));
        EXPECT_TRUE(cache.ok()) << cache.status().ToString();
        EXPECT_EQ((*cache)->sources()[0].samples, 20'000);
        published.push_back(name);
      }
    }
    return published;
  }

  int attempts_ = 0;
};

TEST_F(PrepareCrash, KilledAtAnyMomentItLeavesNoHalfCacheAndNothingThatStays) {
  const auto begin = steady_clock::now();
  ASSERT_EQ(Wait(Start()), 0);
  const auto whole = steady_clock::now() - begin;
  ASSERT_THAT(Published(), SizeIs(1));
  ASSERT_TRUE(RemoveTree(Root()).ok());
  constexpr int kKills = 24;
  int temporaries = 0;
  for (int i = 0; i < kKills; ++i) {
    const pid_t child = Start();
    std::this_thread::sleep_for(whole * i / kKills);
    kill(child, SIGKILL);
    Wait(child);
    for (const std::string& name : Published()) {  // the next one begins anew
      ASSERT_TRUE(RemoveTree(JoinPath(Root(), name)).ok());
    }
    const auto names = ListDir(Root());
    temporaries += names.ok() && !names->empty() ? 1 : 0;
  }
  EXPECT_GT(temporaries, 0) << "no kill came while a cache was written";
  ASSERT_EQ(Wait(Start()), 0);
  EXPECT_THAT(Published(), SizeIs(1));
  std::vector<std::string> left = *ListDir(Root());
  // A directory without a file yet may belong to a writer that starts; a minute later it goes.
  std::erase_if(left,
                [&](const std::string& name) { return ListDir(JoinPath(Root(), name))->empty(); });
  EXPECT_THAT(left, SizeIs(1)) << ::testing::PrintToString(left);
}

TEST_F(PrepareCrash, SeveralAtOnceMakeOneCacheThatIsReadableMeanwhile) {
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(Start());
  }
  std::vector<int> codes(children.size(), -1000);
  size_t ended = 0;
  while (ended < children.size()) {
    Published();
    for (size_t i = 0; i < children.size(); ++i) {
      int status = 0;
      if (codes[i] == -1000 && waitpid(children[i], &status, WNOHANG) == children[i]) {
        codes[i] = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        ++ended;
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_THAT(codes, ::testing::Each(0));
  EXPECT_THAT(*ListDir(Root()), SizeIs(1));
  EXPECT_THAT(Published(), SizeIs(1));
}

}  // namespace
}  // namespace mft
