// SPDX-License-Identifier: Apache-2.0
#include "common/base/files.h"

#include <gtest/gtest.h>

#include "common/base/ids.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

TEST(WriteFileAtomic, ReplacesTheWholeFileAndLeavesNoTemporary) {
  const testing::TempDir dir;
  ASSERT_TRUE(WriteFileAtomic(dir.File("a"), "one").ok());
  ASSERT_TRUE(WriteFileAtomic(dir.File("a"), "two").ok());
  EXPECT_EQ(ReadFile(dir.File("a")).value(), "two");
  EXPECT_EQ(ListDir(dir.path()).value(), std::vector<std::string>{"a"});
}

TEST(WriteFileAtomic, NamesThePathWhenTheDirectoryIsMissing) {
  const Status status = WriteFileAtomic("/nonexistent-dir/a", "x");
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_NE(status.message().find("/nonexistent-dir/a"), std::string::npos);
}

TEST(ReadFile, RefusesMoreThanTheLimit) {
  const testing::TempDir dir;
  EXPECT_EQ(ReadFile(dir.Write("a", "12345"), 4).status().code(), Code::kInvalidArgument);
  EXPECT_TRUE(ReadFile(dir.File("a"), 5).ok());
}

TEST(TryLockFile, GivesNothingWhileSomebodyHoldsIt) {
  const testing::TempDir dir;
  auto first = TryLockFile(dir.File("lock"));
  ASSERT_TRUE(first.ok() && first->valid());
  EXPECT_FALSE(TryLockFile(dir.File("lock")).value().valid());
  first->reset();
  EXPECT_TRUE(TryLockFile(dir.File("lock")).value().valid());
}

TEST(MappedFile, MapsEmptyAndFullFiles) {
  const testing::TempDir dir;
  EXPECT_TRUE(MappedFile::Open(dir.Write("empty", "")).value().bytes().empty());
  EXPECT_EQ(MappedFile::Open(dir.Write("full", "abc")).value().bytes().size(), 3U);
  EXPECT_EQ(MappedFile::Open(dir.path()).status().code(), Code::kInvalidArgument);
}

TEST(Ids, AreValidAndDifferent) {
  EXPECT_TRUE(IsValidJobId(NewJobId()));
  EXPECT_NE(NewJobId(), NewJobId());
  EXPECT_FALSE(IsValidJobId("../../etc/p"));
  EXPECT_EQ(RandomUuid4().size(), 36U);
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace mft
