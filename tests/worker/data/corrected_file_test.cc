// SPDX-License-Identifier: Apache-2.0
#include "worker/data/corrected_file.h"

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "tests/support/temp_dir.h"

namespace mft::data {
namespace {

TEST(CorrectedFile, KeepsTheGoodLinesAndThoseThatNobodyJudged) {
  const testing::TempDir dir;
  const std::string path = dir.Write("a.jsonl", "0\n1\r\n2\n3");
  std::vector<bool> bad = {true, false, true};
  bad.pop_back();
  const auto corrected = WriteCorrectedFile(path, bad);
  ASSERT_TRUE(corrected.ok()) << corrected.status().ToString();
  EXPECT_EQ(*corrected, path + ".corrected");
  EXPECT_EQ(*ReadFile(*corrected), "1\n2\n3\n");
}

TEST(CorrectedFile, AFileThatLostALineIsRefused) {
  const testing::TempDir dir;
  const std::string path = dir.Write("a.jsonl", "0\n1\n");
  EXPECT_TRUE(WriteCorrectedFile(path, {false, true}).ok());
  ASSERT_TRUE(RemoveTree(path + ".corrected").ok());
  EXPECT_EQ(WriteCorrectedFile(path, {false, true, false}).status().code(),
            Code::kFailedPrecondition);
  EXPECT_FALSE(PathExists(path + ".corrected"));
}

}  // namespace
}  // namespace mft::data
