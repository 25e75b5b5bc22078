// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/line_reader.h"

#include <fcntl.h>

#include <vector>

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace mft {
namespace {

TEST(LineReader, KeepsNumbersAcrossAllKindsOfEnds) {
  const testing::TempDir dir;
  const std::string big(300'000, 'x');
  auto reader = LineReader::Open(dir.Write("a", "one\r\n\n" + big + "\nlast")).value();
  std::vector<std::string> lines;
  DataLine line;
  while (reader.Next(line).value()) {
    EXPECT_EQ(line.number, static_cast<int64_t>(lines.size()));
    lines.push_back(line.text);
  }
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "", big, "last"}));
  auto empty = LineReader::Open(dir.Write("b", "")).value();
  EXPECT_FALSE(empty.Next(line).value());
  EXPECT_FALSE(LineReader::Open(dir.path()).ok());
}

TEST(LineReader, KeepsTheBeginningOfAnOverlongLine) {
  const testing::TempDir dir;
  const std::string big = "begins " + std::string(600'000, 'x') + " end";
  UniqueFd file = OpenFile(dir.Write("a", big + "\n" + big + "\nshort"), O_RDONLY).value();
  LineReader reader = LineReader::On(std::move(file), "a", 10);
  DataLine line;
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(reader.Next(line).value());
    EXPECT_TRUE(line.too_long);
    EXPECT_EQ(line.text, "begins xxx");
  }
  ASSERT_TRUE(reader.Next(line).value());
  EXPECT_FALSE(line.too_long);
  EXPECT_EQ(line.text, "short");
  EXPECT_EQ(line.number, 2);
}

}  // namespace
}  // namespace mft
