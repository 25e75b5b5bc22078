// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/publish_dir.h"

#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::function<Status(const std::string&)> Writes(const std::string& content) {
  return [content](const std::string& directory) {
    return WriteFileAtomic(JoinPath(directory, "file"), content);
  };
}

TEST(PublishDirectory, AppearsAtOnceAndLeavesNothingElse) {
  const testing::TempDir dir;
  const std::string target = JoinPath(dir.path(), "a/b");
  ASSERT_TRUE(PublishDirectory(target + "/", IfThere::kFail, [&](const std::string& directory) {
                EXPECT_FALSE(PathExists(target));
                return Writes("one")(directory);
              }).ok());
  EXPECT_EQ(ReadFile(JoinPath(target, "file")).value(), "one");
  EXPECT_THAT(ListDir(JoinPath(dir.path(), "a")).value(), ElementsAre("b"));
}

TEST(PublishDirectory, TakesAnEmptyDirectoryButNothingElse) {
  const testing::TempDir dir;
  const std::string target = JoinPath(dir.path(), "taken");
  ASSERT_TRUE(MakeDirs(target).ok());
  ASSERT_TRUE(PublishDirectory(target, IfThere::kFail, Writes("one")).ok());
  const Status again = PublishDirectory(target, IfThere::kFail, Writes("two"));
  EXPECT_EQ(again.code(), Code::kAlreadyExists);
  EXPECT_THAT(again.message(), HasSubstr(target));
  EXPECT_EQ(ReadFile(JoinPath(target, "file")).value(), "one");
  EXPECT_EQ(PublishDirectory(JoinPath(target, "file"), IfThere::kFail, Writes("two")).code(),
            Code::kAlreadyExists);
  EXPECT_THAT(ListDir(dir.path()).value(), ElementsAre("taken"));
}

TEST(PublishDirectory, ReplacesWhereItMay) {
  const testing::TempDir dir;
  const std::string target = JoinPath(dir.path(), "result");
  ASSERT_TRUE(MakeDirs(target).ok());
  dir.Write("result/left over", "x");
  ASSERT_TRUE(PublishDirectory(target, IfThere::kReplace, Writes("two")).ok());
  EXPECT_THAT(ListDir(target).value(), ElementsAre("file"));
  EXPECT_THAT(ListDir(dir.path()).value(), ElementsAre("result"));
}

TEST(PublishDirectory, LeavesTheOldOneAfterAFailure) {
  const testing::TempDir dir;
  const std::string target = JoinPath(dir.path(), "result");
  ASSERT_TRUE(PublishDirectory(target, IfThere::kReplace, Writes("one")).ok());
  const Status failed =
      PublishDirectory(target, IfThere::kReplace, [](const std::string& directory) -> Status {
        EXPECT_TRUE(Writes("half")(directory).ok());
        return {Code::kResourceExhausted, "no space"};
      });
  EXPECT_EQ(failed.code(), Code::kResourceExhausted);
  EXPECT_THROW(static_cast<void>(PublishDirectory(
                   target,
                   IfThere::kReplace,
                   [](const std::string&) -> Status { throw std::runtime_error("thrown"); })),
               std::runtime_error);
  EXPECT_EQ(ReadFile(JoinPath(target, "file")).value(), "one");
  EXPECT_THAT(ListDir(dir.path()).value(), ElementsAre("result"));
}

}  // namespace
}  // namespace mft
