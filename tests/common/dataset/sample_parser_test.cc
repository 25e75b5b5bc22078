// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/sample_parser.h"

#include <map>

#include <gtest/gtest.h>

#include "common/tokenizer/tokenizer.h"
#include "tests/support/fixtures.h"
#include "tests/support/tokenizers.h"

namespace mft {
namespace {

const Tokenizer& SpmV3() {
  static const auto tokenizer =
      LoadTokenizer(testing::TokenizerFile("mistral_instruct_tokenizer_240323.model.v3")).value();
  return *tokenizer;
}

std::string Bits(const std::vector<uint8_t>& mask) {
  std::string bits;
  for (const uint8_t m : mask) {
    bits += m != 0 ? '1' : '0';
  }
  return bits;
}

Result<EncodedSample> Encode(SourceKind kind, const std::string& line) {
  MFT_ASSIGN_OR_RETURN(const Sample sample, ParseSample(kind, line));
  if (const auto* text = std::get_if<TextSample>(&sample)) {
    return EncodeText(SpmV3(), text->text);
  }
  if (const auto* tokens = std::get_if<TokenSample>(&sample)) {
    return tokens->sample;
  }
  return EncodeConversation(SpmV3(), std::get<Conversation>(sample));
}

class Chats : public ::testing::TestWithParam<std::string> {};

TEST_P(Chats, TokensAndMasksAreThoseOfTheReference) {
  const Tokenizer& tokenizer = testing::NamedTokenizer(GetParam());
  int count = 0;
  int refused = 0;
  for (const std::string folder : {"data/", "data/extended/"}) {
    std::map<int, std::string> samples;
    for (const Json& line : testing::ReadJsonLines(testing::Fixture(folder + "samples.jsonl"))) {
      samples[line["case"]] = line["sample"].dump();
    }
    for (const Json& line : testing::ReadJsonLines(testing::Fixture(folder + "chats.jsonl"))) {
      if (line["tokenizer"] != GetParam()) {
        continue;
      }
      const auto sample = ParseSample(SourceKind::kInstruct, samples.at(line["case"]));
      ASSERT_TRUE(sample.ok()) << folder << line["case"] << " " << sample.status().message();
      const auto encoded = EncodeConversation(tokenizer, std::get<Conversation>(*sample));
      ++count;
      if (line.contains("error")) {
        ++refused;
        EXPECT_EQ(encoded.status().reason(), line["error"].get<std::string>());
        continue;
      }
      ASSERT_TRUE(encoded.ok()) << folder << line["case"] << " " << encoded.status().message();
      EXPECT_EQ(encoded->tokens, line["tokens"].get<std::vector<int32_t>>())
          << folder << line["case"];
      EXPECT_EQ(Bits(encoded->mask), line["mask"].get<std::string>()) << folder << line["case"];
    }
  }
  EXPECT_EQ(count, 131);
  EXPECT_EQ(refused, GetParam() == "spm-v1" ? 39 : 0);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers,
                         Chats,
                         ::testing::ValuesIn(testing::TokenizerNames()),
                         [](const auto& name) {
                           std::string text = name.param;
                           text[text.find('-')] = '_';
                           return text;
                         });

TEST(Text, TokensAreThoseOfTheReference) {
  for (const Json& line :
       testing::ReadJsonLines(testing::Fixture("data/extended/pretrain.jsonl"))) {
    const auto encoded = Encode(SourceKind::kText, line["sample"].dump());
    if (line["by_tokenizer"].empty()) {
      EXPECT_FALSE(encoded.ok()) << line["case"];
      continue;
    }
    ASSERT_TRUE(encoded.ok()) << line["case"];
    EXPECT_EQ(encoded->tokens, line["by_tokenizer"]["spm-v3"].get<std::vector<int32_t>>())
        << line["case"];
  }
}

TEST(Invalid, IsRefusedWithTheReferencesClass) {
  int refused = 0;
  for (const char* file : {"data/invalid.jsonl", "data/extended/invalid.jsonl"}) {
    for (const Json& line : testing::ReadJsonLines(testing::Fixture(file))) {
      const auto sample =
          Encode(line["kind"] == "pretrain" ? SourceKind::kText : SourceKind::kInstruct,
                 line["sample"].dump());
      if (line.contains("accepted")) {
        ASSERT_TRUE(sample.ok()) << line["name"] << sample.status().message();
        EXPECT_EQ(sample->tokens, line["tokens"].get<std::vector<int32_t>>()) << line["name"];
        continue;
      }
      ++refused;
      EXPECT_EQ(sample.status().reason(), line["error"].get<std::string>())
          << line["name"] << ": " << sample.status().message();
      EXPECT_FALSE(sample.status().message().empty());
    }
  }
  EXPECT_EQ(refused, 41 + 69);
}

TEST(Edges, AreAcceptedOrRefusedAsAPortMust) {
  for (const Json& line : testing::ReadJsonLines(testing::Fixture("data/extended/edges.jsonl"))) {
    const auto sample = Encode(SourceKind::kInstruct, line["line"].get<std::string>());
    const std::string port = line["port"];
    if (port != "free") {
      EXPECT_EQ(sample.ok(), port == "accept") << line["name"] << ": " << sample.status().message();
    }
    if (port == "accept" && line.contains("tokens")) {
      EXPECT_EQ(sample->tokens, line["tokens"].get<std::vector<int32_t>>()) << line["name"];
    }
  }
}

TEST(HostileLines, AreRefusedWithoutACrash) {
  for (const std::string& line : std::vector<std::string>{
           "\xFF",
           "{\"text\": \"\xC3\"}",
           std::string(1'000'000, '['),
           "{\"messages\": " + std::string(500, '[') + std::string(500, ']') + "}",
           std::string("\0", 1),
           "{\"messages\": [null]}",
           "{\"messages\": [[]]}",
           "\xEF\xBB\xBF{}"}) {
    EXPECT_FALSE(ParseSample(SourceKind::kInstruct, line).ok()) << line.substr(0, 60);
    EXPECT_FALSE(ParseSample(SourceKind::kText, line).ok()) << line.substr(0, 60);
  }
}

TEST(Tokens, BothSpellingsAreRead) {
  const auto own =
      Encode(SourceKind::kInstruct, R"({"tokens": [1, 5, 2], "mask": [false, 1, true]})");
  EXPECT_EQ(own->tokens, (std::vector<int32_t>{1, 5, 2}));
  EXPECT_EQ(Bits(own->mask), "011");
  EXPECT_EQ(Bits(Encode(SourceKind::kText, R"({"tokens": [1, 5]})")->mask), "11");
  EXPECT_EQ(
      Bits(
          Encode(SourceKind::kEval,
                 R"({"input_ids": [1, 5, 2], "labels": [-100, 5, 2], "attention_mask": [1, 1, 1]})")
              ->mask),
      "011");
  for (const char* line : {R"({"tokens": [1.5]})",
                           R"({"tokens": [99999999999]})",
                           R"({"tokens": [-1]})",
                           R"({"tokens": [1], "mask": [2]})",
                           R"({"tokens": [1], "mask": []})",
                           R"({"tokens": 1})",
                           R"({"input_ids": [1], "labels": [7]})"}) {
    EXPECT_EQ(ParseSample(SourceKind::kInstruct, line).status().reason(), "TokensFormatError")
        << line;
  }
}

std::string Repeated(std::string_view item, size_t count) {
  std::string text(item);
  for (size_t i = 1; i < count; ++i) {
    text += ",";
    text += item;
  }
  return text;
}

TEST(Tokens, SamplesOfMillionsAreRead) {
  constexpr size_t kTokens = 3'000'000;
  const std::string line = R"({"tokens": [)" + Repeated("9", kTokens) + R"(], "mask": [)" +
                           Repeated("1", kTokens) + "]}";
  const auto sample = Encode(SourceKind::kInstruct, line);
  ASSERT_TRUE(sample.ok()) << sample.status().ToString();
  EXPECT_EQ(sample->tokens, std::vector<int32_t>(kTokens, 9));
  EXPECT_EQ(sample->mask, std::vector<uint8_t>(kTokens, 1));
}

TEST(HostileLines, OfMillionsOfValuesAreRefused) {
  const std::string line = R"({"messages": [)" + Repeated("{}", 1 << 20) + "]}";
  const Status status = ParseSample(SourceKind::kInstruct, line).status();
  EXPECT_EQ(status.reason(), "JSONDecodeError");
  EXPECT_NE(status.message().find("more than 1048576 values; split the sample"), std::string::npos)
      << status.message();
}

TEST(ToolSchemas, PatternsAreReadAsPythonReadsThem) {
  const auto with_pattern = [](const std::string& pattern) {
    return ParseSample(SourceKind::kInstruct,
                       R"({"messages": [{"role": "user", "content": "a"},
                           {"role": "assistant", "content": "b"}],
                           "tools": [{"function": {"name": "f", "description": "d",
                           "parameters": {"properties": {"p": {"pattern": ")" +
                           pattern + R"("}}}}}]})");
  };
  for (const char* pattern :
       {R"(^[\\u4e00-\\u9fa5]+$)", R"(\\ud83d)", R"(^\\d{4}-\\d{2}$)", R"((?P<year>\\d+))", ""}) {
    EXPECT_TRUE(with_pattern(pattern).ok()) << pattern << with_pattern(pattern).status().message();
  }
  for (const char* pattern : {"(", "[", "*", R"(\\)", "(?P<a", "x{2,1}"}) {
    EXPECT_EQ(with_pattern(pattern).status().reason(), "InvalidToolSchemaException") << pattern;
  }
}

}  // namespace
}  // namespace mft
