// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/tokenizer.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/tokenizer/chat.h"
#include "common/tokenizer/chat_json.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tokenizers.h"

namespace mft {
namespace {

constexpr const char* kV3 = "mistral_instruct_tokenizer_240323.model.v3";

class SpmV3 : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = LoadTokenizer(testing::TokenizerFile(kV3)).value().release();
  }
  static void TearDownTestSuite() { delete tokenizer_; }
  static const Tokenizer* tokenizer_;
};
const Tokenizer* SpmV3::tokenizer_ = nullptr;

TEST_F(SpmV3, KnowsItsControlTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 32768);
  EXPECT_EQ(tokenizer_->bos(), 1);
  EXPECT_EQ(tokenizer_->eos(), 2);
  EXPECT_EQ(tokenizer_->SpecialToken("[TOOL_RESULTS]").value(), 8);
  EXPECT_EQ(tokenizer_->SpecialToken("[THINK]").status().code(), Code::kNotFound);
  EXPECT_EQ(tokenizer_->file_hash(),
            "9addc8bdce5988448ae81b729336f43a81262160ae8da760674badab9d4c7d33");
}

TEST_F(SpmV3, APromptEndsWhereTheAssistantAnswers) {
  const Conversation conversation{.system_prompt = "S",
                                  .messages = {{.role = Role::kUser, .content = "a"}}};
  std::vector<int32_t> expected = {1, 3};
  tokenizer_->Encode("S\n\na", expected);
  expected.push_back(4);
  EXPECT_EQ(EncodePrompt(*tokenizer_, conversation).value(), expected);
  EXPECT_FALSE(EncodePrompt(*tokenizer_, {}).ok());
}

class EveryTokenizer : public ::testing::TestWithParam<std::string> {
 protected:
  const Tokenizer& tokenizer_ = testing::NamedTokenizer(GetParam());
  std::vector<int32_t> Encode(std::string_view text) const {
    std::vector<int32_t> ids;
    tokenizer_.Encode(text, ids);
    return ids;
  }
};

INSTANTIATE_TEST_SUITE_P(Names,
                         EveryTokenizer,
                         ::testing::ValuesIn(testing::TokenizerNames()),
                         [](const auto& name) {
                           std::string text = name.param;
                           text[text.find('-')] = '_';
                           return text;
                         });

// A line has the ids of spm-v1, spm-v3 and tekken-v3; of spm-v2 and spm-v7 where they differ from
// spm-v3. Later Tekken versions have the same vocabulary.
TEST_P(EveryTokenizer, EncodesAndDecodesEveryString) {
  const std::string family = GetParam().substr(0, GetParam().find('-'));
  int count = 0;
  for (const char* file : {"data/strings.jsonl", "data/extended/strings.jsonl"}) {
    for (const Json& line : testing::ReadJsonLines(testing::Fixture(file))) {
      const std::string key = line.contains(GetParam()) ? GetParam() : family + "-v3";
      const auto ids = Encode(line["text"].get<std::string>());
      EXPECT_EQ(ids, line[key].get<std::vector<int32_t>>()) << line["text"];
      if (line.contains(key + "-decoded")) {
        EXPECT_EQ(tokenizer_.Decode(ids).value(), line[key + "-decoded"].get<std::string>());
      }
      ++count;
    }
  }
  EXPECT_EQ(count, 635);
}

TEST_P(EveryTokenizer, DecodesRandomIds) {
  int count = 0;
  for (const Json& line : testing::ReadJsonLines(testing::Fixture("data/extended/decode.jsonl"))) {
    if (line["tokenizer"] == GetParam()) {
      const auto tokens = line["tokens"].get<std::vector<int32_t>>();
      EXPECT_EQ(tokenizer_.Decode(tokens).value(), line["ignore"].get<std::string>());
      EXPECT_EQ(tokenizer_.Decode(tokens, SpecialTokens::kKeep).value(),
                line["keep"].get<std::string>());
      const auto refused = tokenizer_.Decode(tokens, SpecialTokens::kRefuse);
      EXPECT_EQ(refused.ok(), line["raise"].is_string()) << line;
      EXPECT_EQ(refused.ok() ? *refused : refused.status().reason(),
                refused.ok() ? line["raise"].get<std::string>()
                             : line["raise"]["error"].get<std::string>());
      ++count;
    }
  }
  const bool in_file = GetParam().starts_with("spm-") || GetParam() == "tekken-v3";
  EXPECT_EQ(count, in_file ? 30 : 0);
  EXPECT_FALSE(tokenizer_.Decode(std::vector<int32_t>{tokenizer_.vocab_size()}).ok());
  EXPECT_FALSE(tokenizer_.Decode(std::vector<int32_t>{-1}).ok());
}

TEST_P(EveryTokenizer, EncodesTextBetweenBeginAndEnd) {
  int count = 0;
  for (const Json& line :
       testing::ReadJsonLines(testing::Fixture("data/extended/pretrain.jsonl"))) {
    if (line["by_tokenizer"].empty()) {
      continue;  // no text sample
    }
    const Json& text =
        line["sample"].contains("text") ? line["sample"]["text"] : line["sample"]["content"];
    EXPECT_EQ(EncodeText(tokenizer_, text.get<std::string>()).tokens,
              line["by_tokenizer"][GetParam()].get<std::vector<int32_t>>())
        << line["case"];
    ++count;
  }
  EXPECT_EQ(count, 8);
}

TEST_P(EveryTokenizer, NamesItsVersion) {
  EXPECT_EQ(TokenizerVersionName(tokenizer_.version()),
            GetParam().substr(GetParam().find('-') + 1));
}

TEST(Settings, AreThoseThatTheModelKnows) {
  const Tokenizer& v15 = testing::NamedTokenizer("tekken-v15");
  EXPECT_EQ(SettingsJson(v15.model_settings(), std::nullopt).value(),
            R"({"reasoning_effort": "none"})");
  EXPECT_EQ(SettingsJson(v15.model_settings(), "high").value(), R"({"reasoning_effort": "high"})");
  const auto unknown = SettingsJson(v15.model_settings(), "low");
  EXPECT_EQ(unknown.status().message(),
            "reasoning_effort should be one of none, high, not \"low\"");
  EXPECT_EQ(SettingsJson(Json(), std::nullopt).value(), "");
  EXPECT_FALSE(SettingsJson(Json(), "high").ok());
  Json two = v15.model_settings();  // the order of the names does not matter
  two["a"] = two["reasoning_effort"];
  two["z"] = two["reasoning_effort"];
  EXPECT_EQ(SettingsJson(two, "high").value(),
            R"({"a": "none", "reasoning_effort": "high", "z": "none"})");
  Json rule = v15.model_settings();
  rule["reasoning_effort"]["accepts_none"] = false;
  EXPECT_FALSE(SettingsJson(rule, std::nullopt).ok());
}

TEST(LeftOut, NamesWhatAVersionHasNoPlaceFor) {
  const Conversation only_assistant{.system_prompt = "S",
                                    .messages = {{.role = Role::kAssistant, .content = "a"}}};
  const Conversation tools{.messages = {{.role = Role::kUser, .content = "a"}},
                           .tools = {{.name = "f", .parameters = "{}"}}};
  Conversation effort = tools;
  effort.reasoning_effort = "high";
  effort.tools.clear();
  const auto left_out = [](const char* name, const Conversation& conversation) {
    return LeftOut(testing::NamedTokenizer(name), conversation);
  };
  EXPECT_NE(left_out("spm-v3", only_assistant).find("system prompt"), std::string::npos);
  EXPECT_EQ(left_out("spm-v7", only_assistant), "");
  EXPECT_NE(left_out("spm-v1", tools).find("tools"), std::string::npos);
  EXPECT_EQ(left_out("spm-v2", tools), "");
  EXPECT_NE(left_out("spm-v7", effort).find("reasoning_effort"), std::string::npos);
  EXPECT_EQ(left_out("tekken-v15", effort), "");
}

TEST(LoadTokenizer, RecognisesFilesByTheirNames) {
  EXPECT_EQ(LoadTokenizer(testing::TokenizerFile("tokenizer.model.v1")).value()->version(),
            TokenizerVersion::kV1);
  EXPECT_EQ(LoadTokenizer(testing::TokenizerFile("mistral_instruct_tokenizer_241114.model.v7m1"))
                .value()
                ->version(),
            TokenizerVersion::kV7);
  EXPECT_EQ(LoadTokenizer("/nonexistent/tokenizer.model.v3").status().code(), Code::kNotFound);
}

TEST(LoadTokenizer, RefusesDamagedFiles) {
  const testing::TempDir dir;
  const std::string model = ReadFile(testing::TokenizerFile(kV3)).value();
  for (const size_t size : {size_t{0}, size_t{10}, model.size() / 2, model.size() - 1}) {
    const auto tokenizer = LoadTokenizer(dir.Write("tokenizer.model.v3", model.substr(0, size)));
    EXPECT_FALSE(tokenizer.ok()) << size;
  }
  EXPECT_FALSE(LoadTokenizer(dir.Write("tokenizer.model.v3", std::string(100'000, '\x7f'))).ok());
}

// A normalizer_spec (field 3) or denormalizer_spec (5) with a precompiled_charsmap (2) of garbage:
// merged into the model's own, as protobuf does. The library would follow its offsets.
TEST(LoadTokenizer, RefusesNormalisationMaps) {
  const testing::TempDir dir;
  const std::string model = ReadFile(testing::TokenizerFile(kV3)).value();
  for (const char tag : {'\x1A', '\x2A'}) {
    const std::string map = std::string("\x12\x40", 2) + std::string(64, '\x7f');
    const std::string spec = std::string(1, tag) + '\x42' + map;
    const auto tokenizer = LoadTokenizer(dir.Write("tokenizer.model.v3", model + spec));
    ASSERT_FALSE(tokenizer.ok());
    EXPECT_NE(tokenizer.status().message().find("normalisation map"), std::string::npos)
        << tokenizer.status().message();
  }
}

// Appended fields are merged into the model; each of these made the library throw or sort by NaN.
TEST(LoadTokenizer, RefusesModelsThatTheLibraryTrusts) {
  const testing::TempDir dir;
  const std::string model = ReadFile(testing::TokenizerFile(kV3)).value();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {std::string("\x12\x02\x18\x01", 4), "type 1"},       // unigram
      {std::string("\x0A\x05\x15\0\0\0\0", 7), "no text"},  // no piece
      {std::string("\x0A\x02\x0A\0", 4), "bad text"},       // ""
      {std::string("\x0A\x04\x0A\x02"
                   "a\0",
                   6),
       "bad text"},                                          // "a\0"
      {std::string("\x0A\x03\x0A\x01\xFF", 5), "bad text"},  // no UTF-8
      {std::string("\x0A\x08\x0A\x01"
                   "a\x15\0\0\xC0\x7F",
                   10),
       "bad score"},  // NaN
      {std::string("\x0A\x05\x0A\x01"
                   "a\x18\x09",
                   7),
       "bad type"},
  };
  for (const auto& [fields, part] : cases) {
    const auto tokenizer = LoadTokenizer(dir.Write("tokenizer.model.v3", model + fields));
    ASSERT_FALSE(tokenizer.ok()) << part;
    EXPECT_NE(tokenizer.status().message().find(part), std::string::npos)
        << tokenizer.status().message();
  }
}

TEST(FindTokenizerFile, WantsExactlyOne) {
  const testing::TempDir dir;
  EXPECT_EQ(FindTokenizerFile(dir.path()).status().code(), Code::kNotFound);
  dir.Write("tokenizer.model.v3", "");
  dir.Write("params.json", "");
  EXPECT_EQ(FindTokenizerFile(dir.path()).value(), dir.File("tokenizer.model.v3"));
  dir.Write("tekken.json", "");
  EXPECT_EQ(FindTokenizerFile(dir.path()).status().code(), Code::kFailedPrecondition);
}

}  // namespace
}  // namespace mft
