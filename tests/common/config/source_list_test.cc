// SPDX-License-Identifier: Apache-2.0
#include "common/config/source_list.h"

#include <sys/stat.h>

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fixtures.h"
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

// Sources, weights and files as mistral-finetune reads them. What it refuses may be clearer here,
// and white space around ':' is no part of a path.
TEST(ParseSources, AgreeWithTheReference) {
  const TempDir dir;
  for (const char* name : {"loader.a.jsonl", "loader.b.jsonl", "loader.text.jsonl"}) {
    dir.Write(name, "");
  }
  for (const char* name : {"one.jsonl", "sub/two.jsonl", "notes.txt", "zjsonl"}) {
    dir.Write(std::string("folder/") + name, "");
  }
  const auto sources_of = [&](const Json& text, const char* type, Json& out) -> Status {
    MFT_ASSIGN_OR_RETURN(auto sources, ParseSources(text.get<std::string>()));
    for (DataSource& source : sources) {
      const std::string path = std::filesystem::path(source.path).lexically_normal();
      source.path = dir.File(path);
      MFT_ASSIGN_OR_RETURN(const auto files, ExpandSource(source));
      Json names = Json::array();
      for (const std::string& file : files) {
        names.push_back(file.substr(dir.path().size() + 1));
      }
      out.push_back({{"path", path}, {"type", type}, {"weight", source.weight}, {"files", names}});
    }
    return Status::Ok();
  };
  int same = 0;
  int refused = 0;
  std::vector<std::string> accepted;  // what the reference refuses
  for (const Json& line : testing::ReadJsonLines(testing::Fixture("data/extended/sources.jsonl"))) {
    Json ours = Json::array();
    Status status = sources_of(line["data"], "pretrain", ours);
    status = status.ok() ? sources_of(line["instruct_data"], "instruct", ours) : status;
    if (line.contains("error")) {
      refused += status.ok() ? 0 : 1;
      if (status.ok()) {
        accepted.push_back(line["data"].get<std::string>() + "|" +
                           line["instruct_data"].get<std::string>());
      }
      continue;
    }
    ASSERT_TRUE(status.ok()) << line << status.message();
    double sum = 0;
    for (const Json& source : ours) {
      sum += source["weight"].get<double>();
    }
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_NEAR(
          ours[i]["weight"].get<double>() / sum, line["sources"][i]["weight"].get<double>(), 1e-12);
      ours[i]["weight"] = line["sources"][i]["weight"];
    }
    EXPECT_EQ(ours, line["sources"]) << line;
    ++same;
  }
  EXPECT_EQ(same, 9);
  EXPECT_EQ(refused, 9);
  // White space; a path in both lists and no path at all, which the job's validation refuses.
  EXPECT_THAT(accepted, ElementsAre("|  loader.a.jsonl : 2", "loader.a.jsonl|loader.a.jsonl", "|"));
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
              ElementsAre(dir.File("d/a/z.jsonl"), dir.File("d/b.jsonl"), dir.File("d/zjsonl")));
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
