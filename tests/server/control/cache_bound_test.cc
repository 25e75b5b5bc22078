// SPDX-License-Identifier: Apache-2.0
#include "server/control/cache_bound.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "tests/support/temp_dir.h"

namespace mft::server {
namespace {

constexpr int64_t kNow = 1'700'000'000'000'000;

class CacheBound : public ::testing::Test {
 protected:
  // A cache of 1000 bytes under the key of 64 times `digit`, used `hours` before kNow.
  std::string Make(char digit, int hours) {
    const std::string key(64, digit);
    temp_.Write(key + "/tokens.mft", std::string(1000, 'x'));
    const timespec time{.tv_sec = kNow / 1'000'000 - hours * 3600, .tv_nsec = 0};
    const timespec times[2] = {time, time};
    EXPECT_EQ(utimensat(AT_FDCWD, temp_.File(key).c_str(), times, 0), 0);
    return temp_.File(key);
  }
  std::string Left() {
    std::string left;
    const std::vector<std::string> names = ListDir(temp_.path()).value();
    for (const std::string& name : names) {
      left += name[0];
    }
    return left;
  }
  testing::TempDir temp_;
};

TEST_F(CacheBound, RemovesThoseNotUsedForLongest) {
  Make('a', 5);
  Make('b', 9);
  Make('c', 2);
  Make('d', 7);
  ASSERT_TRUE(BoundTokenCaches(temp_.path(), 2500, {}, kNow).ok());
  EXPECT_EQ(Left(), "ac");
}

TEST_F(CacheBound, KeepsWhatIsInUseOrFresh) {
  const std::string used = Make('a', 9);
  Make('b', 0);
  Make('c', 5);
  ASSERT_TRUE(BoundTokenCaches(temp_.path(), 0, {used}, kNow).ok());
  EXPECT_EQ(Left(), "ab");
}

TEST_F(CacheBound, LeavesEverythingThatIsNoCacheAlone) {
  temp_.Write("notes/x", "mine");
  temp_.Write("tmp.cache.123/tokens.mft", std::string(5000, 'x'));
  ASSERT_TRUE(BoundTokenCaches(temp_.path(), 0, {}, kNow).ok());
  EXPECT_EQ(Left(), "nt");
}

TEST_F(CacheBound, WhoHasACacheOpenKeepsItsBytes) {
  const std::string path = Make('a', 5);
  const MappedFile mapped = MappedFile::Open(path + "/tokens.mft").value();
  ASSERT_TRUE(BoundTokenCaches(temp_.path(), 0, {}, kNow).ok());
  EXPECT_EQ(Left(), "");
  EXPECT_EQ(static_cast<char>(mapped.bytes()[999]), 'x');
}

TEST_F(CacheBound, ATouchedCacheIsYoung) {
  const std::string cache = Make('a', 500'000);
  TouchTokenCache(cache);
  struct stat info {};
  ASSERT_EQ(stat(cache.c_str(), &info), 0);
  ASSERT_TRUE(BoundTokenCaches(temp_.path(), 0, {}, int64_t{info.st_mtim.tv_sec} * 1'000'000).ok());
  EXPECT_EQ(Left(), "a");
}

}  // namespace
}  // namespace mft::server
