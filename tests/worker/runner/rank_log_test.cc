// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/rank_log.h"

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "tests/support/temp_dir.h"

namespace mft::runner {
namespace {

TEST(LastLogLine, SkipsEmptyLinesAndBadBytes) {
  const mft::testing::TempDir dir;
  EXPECT_EQ(LastLogLine(dir.Write("a", "one\ntwo\n\n  \n")), "two");
  EXPECT_EQ(LastLogLine(dir.Write("b", "only")), "only");
  EXPECT_EQ(LastLogLine(dir.Write("c", "\n\n")), "");
  EXPECT_EQ(LastLogLine(dir.Write("d", "x\xff")), "x\xEF\xBF\xBD");
  EXPECT_EQ(LastLogLine(dir.File("missing")), "");
  EXPECT_LT(LastLogLine(dir.Write("e", std::string(100'000, 'y'))).size(), 400U);
}

int64_t AllocatedBytes(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0);
  return info.st_blocks * 512;
}

TEST(LimitLog, FreesTheHeadAndKeepsOffsetsAndTheTail) {
  const mft::testing::TempDir dir;
  constexpr int64_t kKeep = 64 * 1024;
  const std::string tail = "the end\n";
  const std::string path = dir.Write("log", std::string(1 << 20, 'x') + tail);
  ASSERT_TRUE(LimitLog(path, kKeep).ok());
  EXPECT_LE(AllocatedBytes(path), kKeep * 5 / 4);
  const std::string content = ReadFile(path).value();
  ASSERT_EQ(content.size(), (1U << 20) + tail.size());
  EXPECT_TRUE(content.ends_with("x" + tail));
  EXPECT_EQ(content[0], '\0');
}

TEST(LimitLog, LeavesAShortLogAlone) {
  const mft::testing::TempDir dir;
  const std::string path = dir.Write("log", std::string(10'000, 'x'));
  ASSERT_TRUE(LimitLog(path, 9'000).ok());
  EXPECT_EQ(ReadFile(path).value(), std::string(10'000, 'x'));
}

}  // namespace
}  // namespace mft::runner
