// SPDX-License-Identifier: Apache-2.0
// mft-data encode and decode against what mistral-finetune and mistral-common give (spm-v3).
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/json.h"
#include "common/base/strings.h"
#include "tests/support/fixtures.h"
#include "tests/worker/data/run_mft_data.h"

namespace mft {
namespace {

using testing::Fixture;
using testing::ReadJsonLines;
using testing::RunMftData;

const std::string& SpmV3() {
  static const std::string path =
      testing::TokenizerFile("mistral_instruct_tokenizer_240323.model.v3");
  return path;
}

std::vector<Json> JsonLines(const std::string& text) {
  std::vector<Json> lines;
  for (const std::string& line : Split(text, '\n')) {
    if (!line.empty()) {
      lines.push_back(Json::parse(line));
    }
  }
  return lines;
}

std::string Bits(const Json& mask) {
  std::string bits;
  for (const Json& bit : mask) {
    bits += bit == 1 ? '1' : '0';
  }
  return bits;
}

TEST(MftDataEncode, GivesTheReferencesTokensAndMasks) {
  for (const std::string folder : {"data/", "data/extended/"}) {
    std::map<int, std::string> samples;
    for (const Json& line : ReadJsonLines(Fixture(folder + "samples.jsonl"))) {
      samples[line["case"].get<int>()] = line["sample"].dump();
    }
    std::vector<Json> expected;
    std::string input;
    for (const Json& line : ReadJsonLines(Fixture(folder + "chats.jsonl"))) {
      if (line["tokenizer"] != "spm-v3") {
        continue;
      }
      expected.push_back(line);
      input += samples.at(line["case"].get<int>()) + "\n";
    }
    const auto result = RunMftData({"encode", "--tokenizer", SpmV3()}, input);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const std::vector<Json> lines = JsonLines(result.out);
    ASSERT_EQ(lines.size(), expected.size());
    for (size_t i = 0; i < lines.size(); ++i) {
      EXPECT_EQ(lines[i]["tokens"], expected[i]["tokens"]) << folder << expected[i]["case"];
      EXPECT_EQ(Bits(lines[i]["mask"]), expected[i]["mask"]) << folder << expected[i]["case"];
    }
  }
}

TEST(MftDataEncode, NamesTheClassOfWhatIsWrong) {
  for (const char* file : {"data/invalid.jsonl", "data/extended/invalid.jsonl"}) {
    for (const std::string kind : {"instruct", "pretrain"}) {
      std::string input;
      std::vector<Json> expected;
      for (const Json& line : ReadJsonLines(Fixture(file))) {
        if (line["kind"] == kind) {
          expected.push_back(line);
          input += line["sample"].dump() + "\n";
        }
      }
      const auto result = RunMftData(
          {"encode", "--tokenizer", SpmV3(), "--kind", kind == "instruct" ? "chat" : "text"},
          input);
      EXPECT_EQ(result.exit_code, expected.empty() ? 0 : 3) << result.err;
      const std::vector<Json> lines = JsonLines(result.out);
      ASSERT_EQ(lines.size(), expected.size());
      for (size_t i = 0; i < lines.size(); ++i) {
        EXPECT_EQ(lines[i].contains("error"), !expected[i].contains("accepted"))
            << expected[i]["name"];
        if (lines[i].contains("error")) {
          EXPECT_EQ(lines[i]["error"]["class"], expected[i]["error"]) << expected[i]["name"];
          EXPECT_NE(lines[i]["error"]["message"], "");
        }
      }
    }
  }
}

TEST(MftDataEncode, RawIsTheInverseOfDecode) {
  std::string texts;
  std::vector<Json> expected;
  for (const Json& line : ReadJsonLines(Fixture("data/extended/strings.jsonl"))) {
    texts += line["text"].dump() + "\n";
    expected.push_back(line);
  }
  const auto encoded = RunMftData({"encode", "--raw", "--tokenizer", SpmV3()}, texts);
  EXPECT_EQ(encoded.exit_code, 0) << encoded.err;
  const std::vector<Json> ids = JsonLines(encoded.out);
  const auto decoded = RunMftData({"decode", "--tokenizer", SpmV3()}, encoded.out);
  EXPECT_EQ(decoded.exit_code, 0) << decoded.err;
  const std::vector<Json> back = JsonLines(decoded.out);
  ASSERT_EQ(ids.size(), expected.size());
  ASSERT_EQ(back.size(), expected.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(ids[i]["tokens"], expected[i]["spm-v3"]) << expected[i]["text"];
    EXPECT_EQ(back[i], expected[i]["spm-v3-decoded"]);
  }
}

TEST(MftDataEncode, GoesOnAfterABadLine) {
  const auto result = RunMftData({"encode", "--tokenizer", SpmV3()},
                                 "{\"text\": \"a\"}\n\xFF\n\n{\"tokens\": [1, 40000]}\n"
                                 "{\"tokens\": [1, 5], \"mask\": [false, true]}");
  EXPECT_EQ(result.exit_code, 3);
  const std::vector<Json> lines = JsonLines(result.out);
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[0]["tokens"], Json({1, 1032, 2}));
  EXPECT_EQ(lines[1]["error"]["class"], "EncodingError");
  EXPECT_EQ(lines[2]["error"]["class"], "JSONDecodeError");
  EXPECT_EQ(lines[3]["error"]["class"], "TokensFormatError");
  EXPECT_EQ(lines[4]["mask"], Json({0, 1}));
}

TEST(MftDataEncode, FollowsTheTokenizersVersion) {
  const auto v7 = RunMftData(
      {"encode",
       "--tokenizer",
       testing::TokenizerFile("mistral_instruct_tokenizer_241114.model.v7")},
      R"({"system_prompt": "", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})");
  EXPECT_EQ(v7.exit_code, 0) << v7.err;
  ASSERT_EQ(JsonLines(v7.out).size(), 1u);
  EXPECT_EQ(JsonLines(v7.out)[0]["tokens"], Json({1, 16, 17, 3, 1032, 4, 1055, 2}));
}

TEST(MftDataEncode, SaysWhichTokenizersItCannotUse) {
  const auto missing = RunMftData({"encode", "--tokenizer", "/nonexistent/tokenizer.model.v3"});
  EXPECT_EQ(missing.exit_code, 5);
  EXPECT_THAT(missing.err, ::testing::HasSubstr("/nonexistent/tokenizer.model.v3"));
  EXPECT_EQ(RunMftData({"encode"}).exit_code, 2);
  EXPECT_EQ(RunMftData({"decode"}).exit_code, 2);
}

TEST(MftDataDecode, RefusesWhatIsNoTokenId) {
  const auto result = RunMftData({"decode", "--tokenizer", SpmV3()},
                                 "[1, 3, 1032, 4, 1055, 2]\n[32768]\n[\"a\"]\n[1.5]\n{}\n7\n");
  EXPECT_EQ(result.exit_code, 3);
  const std::vector<Json> lines = JsonLines(result.out);
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0], "a b");
  for (size_t i = 1; i < lines.size(); ++i) {
    EXPECT_TRUE(lines[i].contains("error")) << i;
  }
}

}  // namespace
}  // namespace mft
