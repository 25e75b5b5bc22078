// SPDX-License-Identifier: Apache-2.0
#include "server/control/cache_bound.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/dataset/token_cache.h"
#include "tests/support/cache_builder.h"
#include "tests/support/temp_dir.h"

namespace mft::server {
namespace {

constexpr int64_t kNow = 1'700'000'000'000'000;
constexpr int64_t kHour = 3600 * int64_t{1'000'000};

class CacheBound : public ::testing::Test {
 protected:
  // A cache of 1000 bytes under the key of 64 times `digit`, used `hours` before kNow.
  std::string Make(char digit, int hours) {
    const std::string key(64, digit);
    temp_.Write(key + "/tokens.mft", std::string(1000, 'x'));
    Age(temp_.File(key), hours);
    return temp_.File(key);
  }
  static void Age(const std::string& path, int hours) {
    const timespec time{.tv_sec = kNow / 1'000'000 - hours * 3600, .tv_nsec = 0};
    const timespec times[2] = {time, time};
    EXPECT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  std::string Left() {
    std::string left;
    const std::vector<std::string> names = ListDir(temp_.path()).value();
    for (const std::string& name : names) {
      left += name[0];
    }
    return left;
  }
  // Bounds the caches to `bytes`; those used within the hour before kNow stay.
  CacheUse Bound(int64_t bytes, std::set<std::string> in_use = {}) {
    auto use = BoundTokenCaches(
        temp_.path(),
        {.max_bytes = bytes, .in_use = std::move(in_use), .keep_since_micros = kNow - kHour});
    EXPECT_TRUE(use.ok()) << use.status().ToString();
    return *use;
  }
  testing::TempDir temp_;
};

TEST_F(CacheBound, RemovesThoseNotUsedForLongest) {
  Make('a', 5);
  Make('b', 9);
  Make('c', 2);
  Make('d', 7);
  const CacheUse use = Bound(2500);
  EXPECT_EQ(Left(), "ac");
  EXPECT_EQ(use.caches, 2);
  EXPECT_EQ(use.bytes, 2000);
  EXPECT_EQ(use.removed, 2);
  EXPECT_EQ(use.removed_bytes, 2000);
}

TEST_F(CacheBound, KeepsWhatIsInUseOrFresh) {
  const std::string used = Make('a', 9);
  Make('b', 0);
  Make('c', 5);
  Bound(0, {used});
  EXPECT_EQ(Left(), "ab");
}

TEST_F(CacheBound, LeavesEverythingThatIsNoCacheAlone) {
  temp_.Write("notes/x", "mine");
  temp_.Write("tokens.mft", std::string(5000, 'x'));
  Bound(0);
  EXPECT_EQ(Left(), "nt");
}

TEST_F(CacheBound, RemovesWhatAKilledRemoverOrWriterLeft) {
  temp_.Write("tmp.cache.123/tokens.mft", std::string(5000, 'x'));
  const CacheUse use = Bound(0);
  EXPECT_EQ(Left(), "");
  EXPECT_EQ(use.removed, 0);
}

// A reader in another process: it has the cache open when 'r' arrives, and closes it at 'q'.
class Reader {
 public:
  explicit Reader(const std::string& directory) {
    EXPECT_EQ(pipe(to_), 0);
    EXPECT_EQ(pipe(from_), 0);
    pid_ = fork();
    if (pid_ == 0) {
      const auto cache = TokenCache::Open(directory);
      char byte = cache.ok() ? 'r' : 'x';
      _exit(write(from_[1], &byte, 1) == 1 && read(to_[0], &byte, 1) == 1 ? 0 : 1);
    }
    EXPECT_EQ(read(from_[0], &state_, 1), 1);
  }
  ~Reader() { End(); }
  bool open() const { return state_ == 'r'; }
  void Kill() { kill(pid_, SIGKILL), End(); }

 private:
  void End() {
    if (pid_ > 0) {
      EXPECT_EQ(write(to_[1], "q", 1), 1);
      waitpid(pid_, nullptr, 0);
      pid_ = 0;
    }
  }
  int to_[2], from_[2];
  pid_t pid_ = 0;
  char state_ = 0;
};

TEST_F(CacheBound, ACacheThatAProcessHasOpenStays) {
  const std::string read = Make('a', 9);
  ASSERT_TRUE(RemoveTree(read).ok());
  testing::BuildCache(read, {{.files = {{{.tokens = {1, 2}}}}}});
  Age(read, 9);
  Make('b', 5);
  Reader reader(read);
  ASSERT_TRUE(reader.open());
  Bound(0);
  EXPECT_EQ(Left(), "a");
  EXPECT_TRUE(TokenCache::Open(read).ok());
  Age(read, 9);
  reader.Kill();  // a lock ends with its holder, however that ends
  Bound(0);
  EXPECT_EQ(Left(), "");
}

TEST_F(CacheBound, ATouchedCacheIsYoung) {
  const std::string cache = Make('a', 9);
  TouchTokenCache(cache);  // now, which is after kNow
  Bound(0);
  EXPECT_EQ(Left(), "a");
}

}  // namespace
}  // namespace mft::server
