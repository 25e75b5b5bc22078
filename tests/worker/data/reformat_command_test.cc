// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/data/run_mft_data.h"
#include "worker/data/record_reader.h"

namespace mft::data {
namespace {

using mft::testing::ProgramResult;
using mft::testing::ReadJsonLines;
using mft::testing::RunMftData;
using mft::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kAlpaca = R"({"instruction": "a", "input": "", "output": "b"})";
const std::string kChat =
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})";

class ReformatFile : public ::testing::Test {
 protected:
  std::vector<std::string> Files() { return ListDir(dir_.path()).value(); }
  std::string Read(const std::string& name) { return mft::ReadFile(dir_.File(name)).value(); }
  ProgramResult Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "reformat");
    return RunMftData(std::move(arguments));
  }

  TempDir dir_;
};

TEST_F(ReformatFile, AByteOrderMarkAndWindowsLinesAreNoProblem) {
  const std::string in = dir_.Write("in.jsonl", StrCat("\xEF\xBB\xBF", kAlpaca, "\r\n\r\n"));
  EXPECT_EQ(Run({in, dir_.File("out.jsonl")}).exit_code, 0);
  EXPECT_EQ(Read("out.jsonl"), kChat + "\n");
}

TEST_F(ReformatFile, AKeyThatStandsTwiceIsAProblem) {
  const std::string in =
      dir_.Write("in.jsonl", R"({"prompt": "a", "prompt": "b", "completion": "c"})");
  const ProgramResult result = Run({in, dir_.File("out.jsonl")});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err,
              HasSubstr("in.jsonl:1: JSONDecodeError: the key \"prompt\" stands twice"));
}

TEST_F(ReformatFile, AJsonArrayBecomesLines) {
  const std::string in = dir_.Write("in.json",
                                    StrCat("\n[\n  {\"instruction\": \"[,]\\\"\",\n   \"output\": ",
                                           "\"b\"},\n  7,\n",
                                           kAlpaca,
                                           "]\n"));
  const ProgramResult result = Run({in, dir_.File("out.jsonl")});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, StartsWith(in + ":5: "));
  EXPECT_THAT(result.out, HasSubstr("2 of 3"));
  const auto lines = ReadJsonLines(dir_.File("out.jsonl"));
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0]["messages"][0]["content"], "[,]\"");
}

TEST_F(ReformatFile, AnArrayThatIsCutOffLosesOnlyItsEnd) {
  const std::string in = dir_.Write("in.json", StrCat("[", kAlpaca, ",\n{\"instruction\": \"a"));
  const ProgramResult result = Run({in, dir_.File("out.jsonl")});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, StartsWith(in + ":2: the file ends inside its array"));
  EXPECT_EQ(Read("out.jsonl"), kChat + "\n");
}

TEST_F(ReformatFile, AnArrayStaysAnArrayOnlyAsTheOriginal) {
  const std::string in = dir_.Write("in.json", StrCat("[", kChat, "]"));
  EXPECT_EQ(Run({in, "--in-place"}).exit_code, 0);
  EXPECT_EQ(Read("in.json"), kChat + "\n");
  EXPECT_EQ(Read("in.json.orig"), StrCat("[", kChat, "]"));
}

// One line for a kind of note, whatever the file's size; a line that is left out anyway adds none.
TEST_F(ReformatFile, WhatIsCutOffIsSummedUp) {
  const auto chat = [](int tail) {
    std::string messages =
        R"({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})";
    for (int i = 0; i < tail; ++i) {
      messages += R"(, {"role": "user", "content": "c"})";
    }
    return StrCat(R"({"messages": [)", messages, "]}\n");
  };
  std::string text = StrCat(chat(0), chat(2), "{\"messages\": 7}\n");
  for (int i = 0; i < 100; ++i) {
    text += chat(1);
  }
  const std::string in = dir_.Write("in.jsonl", text);
  const ProgramResult result = Run({in, dir_.File("out.jsonl")});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(Split(result.err, '\n'),
              ElementsAre(StartsWith(in + ":3: "),
                          StrCat(in,
                                 ": note: 102 messages after the last answer left out, in 101 "
                                 "lines: 2, 4, 5, 6, 7, ..."),
                          ""));
}

TEST_F(ReformatFile, ASpeakerThatIsLeftOutIsNamedOnce) {
  std::string text;
  for (int i = 0; i < 3; ++i) {
    text += R"({"function_description": "", "conversations": [{"from": "human", "value": "a"}, )"
            R"({"from": "moderator", "value": "x"}, {"from": "gpt", "value": "b"}]})"
            "\n";
  }
  const std::string in = dir_.Write("in.jsonl", text);
  const ProgramResult result = Run({in, dir_.File("out.jsonl")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err,
            StrCat(in, ": note: 3 messages of \"moderator\" left out, in 3 lines: 1, 2, 3\n"));
}

// A file may name any number of speakers.
TEST_F(ReformatFile, TheKindsOfNotesAreBounded) {
  std::string text;
  for (int i = 0; i < 100; ++i) {
    text += StrCat(
        R"({"function_description": "", "conversations": [{"from": "human", "value": "a"}, )",
        R"({"from": "x)",
        i,
        R"(", "value": "x"}, {"from": "gpt", "value": "b"}]})",
        "\n");
  }
  const std::string in = dir_.Write("in.jsonl", text);
  const ProgramResult result = Run({in, dir_.File("out.jsonl")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 21);
  EXPECT_THAT(result.err, HasSubstr("80 messages of others left out, in 80 lines: 21, 22,"));
}

TEST_F(ReformatFile, NoSampleNoFile) {
  const std::string in = dir_.Write("in.jsonl", "{\"a\": 1}\n");
  const ProgramResult result = Run({in, dir_.File("out.jsonl")});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.out, HasSubstr("nothing was written"));
  EXPECT_EQ(Run({in, "--in-place"}).exit_code, 3);
  EXPECT_EQ(Run({dir_.Write("empty.jsonl", ""), dir_.File("out.jsonl")}).exit_code, 3);
  EXPECT_THAT(Files(), ElementsAre("empty.jsonl", "in.jsonl"));
  EXPECT_EQ(Read("in.jsonl"), "{\"a\": 1}\n");
}

TEST_F(ReformatFile, TheInputIsNotOverwrittenUnderAnotherName) {
  const std::string in = dir_.Write("in.jsonl", kAlpaca + "\n");
  std::filesystem::create_hard_link(in, dir_.File("hard.jsonl"));
  std::filesystem::create_symlink(dir_.path(), dir_.File("folder"));
  for (const char* out : {"hard.jsonl", "folder/in.jsonl"}) {
    const ProgramResult result = Run({in, dir_.File(out), "--force"});
    EXPECT_EQ(result.exit_code, 2) << out;
    EXPECT_THAT(result.err, HasSubstr("are one file"));
    EXPECT_EQ(Read("in.jsonl"), kAlpaca + "\n");
  }
}

TEST_F(ReformatFile, WhatFewMayReadFewMayReadAfterwards) {
  const std::string in = dir_.Write("in.jsonl", kAlpaca + "\n");
  ASSERT_EQ(chmod(in.c_str(), 0600), 0);
  EXPECT_EQ(Run({in, dir_.File("out.jsonl")}).exit_code, 0);
  EXPECT_EQ(Run({in, "--in-place"}).exit_code, 0);
  for (const char* name : {"out.jsonl", "in.jsonl", "in.jsonl.orig"}) {
    struct stat info {};
    ASSERT_EQ(stat(dir_.File(name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U) << name;
  }
}

TEST_F(ReformatFile, ASignalLeavesNothingBehind) {
  const std::string in = dir_.Write("in.jsonl", kAlpaca + "\n");
  const ProgramResult result = RunMftData({"reformat", in, "--in-place"}, "", SIGTERM);
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_THAT(result.err, HasSubstr("stopped; nothing was written"));
  EXPECT_THAT(Files(), ElementsAre("in.jsonl"));
  EXPECT_EQ(Read("in.jsonl"), kAlpaca + "\n");
}

TEST_F(ReformatFile, ParquetIsOneClearError) {
  const std::string named = dir_.Write("a.parquet", "x");
  const std::string marked = dir_.Write("b.jsonl", "PAR1\x15\x04");
  for (const std::string& file : {named, marked}) {
    for (const ProgramResult& result :
         {Run({file, dir_.File("out")}), RunMftData({"validate", file})}) {
      EXPECT_EQ(result.exit_code, 3);
      const std::string text = result.out + result.err;
      EXPECT_THAT(text, HasSubstr(file + " is a Parquet file, which is not read; make JSON Lines"));
      EXPECT_EQ(text.find("JSONDecodeError"), std::string::npos) << text;
    }
  }
  EXPECT_THAT(Files(), ElementsAre("a.parquet", "b.jsonl"));
}

struct ReadRecord {
  int64_t line;
  std::string text;
  bool operator==(const ReadRecord&) const = default;
};

std::vector<ReadRecord> ReadAll(const std::string& path, size_t max_record_bytes) {
  auto reader = RecordReader::Open(path, max_record_bytes).value();
  std::vector<ReadRecord> records;
  DataRecord record;
  while (reader.Next(record).value()) {
    records.push_back({record.line, record.problem.ok() ? record.text : record.problem.message()});
  }
  return records;
}

TEST_F(ReformatFile, ElementsOfAnArrayAreReadOneByOne) {
  const auto read = [&](const std::string& text, size_t max_record_bytes = 100) {
    return ReadAll(dir_.Write("a.json", text), max_record_bytes);
  };
  EXPECT_THAT(read("[]"), ElementsAre());
  EXPECT_THAT(
      read(" [ 1 , {\"a\": [\"]\\\\\"]}\n,\n3]\n"),
      ElementsAre(
          ReadRecord{1, "1 "}, ReadRecord{1, "{\"a\": [\"]\\\\\"]}\n"}, ReadRecord{3, "3"}));
  EXPECT_THAT(
      read("[1]2"),
      ElementsAre(ReadRecord{1, "1"},
                  ReadRecord{1, "something stands behind the array's end; it is not read"}));
  EXPECT_THAT(read("[[12345], 1]", 4),
              ElementsAre(ReadRecord{1, "the element is longer than 4 B"}, ReadRecord{1, "1"}));
}

}  // namespace
}  // namespace mft::data
