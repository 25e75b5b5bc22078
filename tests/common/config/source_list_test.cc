// SPDX-License-Identifier: Apache-2.0
#include "common/config/source_list.h"

#include <sys/stat.h>

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace mft {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TempDir;

std::vector<std::string> Listed(std::string_view text) {
  std::vector<std::string> out;
  const auto sources = ParseSources(text);
  for (const DataSource& source : *sources) {
    out.push_back(source.path + "|" + std::to_string(source.weight).substr(0, 4));
  }
  return out;
}

TEST(ParseSources, SplitsItemsAndWeights) {
  EXPECT_THAT(Listed(" a.jsonl:5., b.jsonl:1.5 ,,dir "),
              ElementsAre("a.jsonl|5.00", "b.jsonl|1.50", "dir|1.00"));
  EXPECT_THAT(Listed("path :3"), ElementsAre("path|3.00"));
  EXPECT_TRUE(Listed("").empty());
  EXPECT_TRUE(Listed(" , ,").empty());
}

TEST(ParseSources, TakesQuotedPathsWithSeparators) {
  EXPECT_THAT(Listed(R"("C:/a,b.jsonl":2,'it''s':3, "x" )"),
              ElementsAre("C:/a,b.jsonl|2.00", "it's|3.00", "x|1.00"));
}

TEST(ParseSources, SaysWhatIsWrong) {
  const auto message = [](std::string_view text) { return ParseSources(text).status().message(); };
  EXPECT_THAT(message("a:b:c"),
              HasSubstr("a:b:c is not correctly formatted. Make sure to format each data source"));
  EXPECT_THAT(message("a:x"), HasSubstr("a:x is not correctly formatted"));
  EXPECT_THAT(message("a:"), HasSubstr("not correctly formatted"));
  EXPECT_THAT(message(":3"), HasSubstr("not correctly formatted"));
  EXPECT_THAT(message("\"a\"b:3"), HasSubstr("not correctly formatted"));
  EXPECT_THAT(message("\"a,b"), HasSubstr("is not closed"));
  EXPECT_THAT(message("a:-1"), HasSubstr("strictly positive data sampling weights, not -1"));
  EXPECT_THAT(message("a:nan"), HasSubstr("strictly positive"));
  EXPECT_THAT(message("a:inf"), HasSubstr("strictly positive"));
  EXPECT_THAT(message("a,b,a:2"),
              HasSubstr("a seems to be duplicated. Make sure to only add it once."));
}

TEST(FormatSources, IsReadBack) {
  const std::vector<DataSource> sources = {
      {"a", 1}, {"C:/x,y", 2.5}, {"it's \"q\", so", 1e-3}, {"'q'", 1}, {" s ", 1}};
  const auto again = ParseSources(FormatSources(sources)).value();
  ASSERT_EQ(again.size(), sources.size());
  for (size_t i = 0; i < sources.size(); ++i) {
    EXPECT_EQ(again[i].path, sources[i].path);
    EXPECT_EQ(again[i].weight, sources[i].weight);
  }
}

TEST(ExpandSource, ListsADirectorySortedAndRecursively) {
  const TempDir dir;
  dir.Write("d/b.jsonl", "{}");
  dir.Write("d/a/z.jsonl", "{}");
  dir.Write("d/zjsonl", "{}");
  dir.Write("d/c.json", "{}");
  std::filesystem::create_directory_symlink(dir.File("d"), dir.File("d/loop"));
  EXPECT_THAT(ExpandSource({dir.File("d"), 1}).value(),
              ElementsAre(dir.File("d/a/z.jsonl"), dir.File("d/b.jsonl")));
  EXPECT_THAT(ExpandSource({dir.File("d/c.json"), 1}).value(), ElementsAre(dir.File("d/c.json")));
}

TEST(ExpandSource, RefusesWhatHasNoData) {
  const TempDir dir;
  dir.Write("empty/readme.txt", "");
  EXPECT_THAT(ExpandSource({dir.File("none"), 1}).status().message(),
              HasSubstr("does not exist. Make sure"));
  EXPECT_THAT(ExpandSource({dir.File("empty"), 1}).status().message(),
              HasSubstr("does not seem to have any files ending with '.jsonl'"));
  ASSERT_EQ(mkfifo(dir.File("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ExpandSource({dir.File("pipe"), 1}).status().message(),
              HasSubstr("neither a file nor a directory"));
}

}  // namespace
}  // namespace mft
