// SPDX-License-Identifier: Apache-2.0
// What unmodified mistral-finetune makes of the fixtures' chats: ours is the same, but for two
// deviations that we want, and nothing else differs in them.
#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "common/dataset/sample_parser.h"
#include "tests/support/fixtures.h"
#include "tests/support/tokenizers.h"

namespace mft {
namespace {

std::string MaskText(const std::vector<uint8_t>& mask) {
  std::string text;
  for (const uint8_t bit : mask) {
    text += bit != 0 ? '1' : '0';
  }
  return text;
}

// Tokens with their mask, so that parts are cut out of both.
struct Encoded {
  std::vector<int32_t> tokens;
  std::string mask;

  void Erase(size_t begin, size_t end) {
    const auto at = [](size_t i) { return static_cast<std::ptrdiff_t>(i); };
    tokens.erase(tokens.begin() + at(begin), tokens.begin() + at(end));
    mask.erase(begin, end - begin);
  }
  size_t Find(int32_t token, size_t from = 0) const {
    return static_cast<size_t>(
        std::find(tokens.begin() + static_cast<std::ptrdiff_t>(from), tokens.end(), token) -
        tokens.begin());
  }
  bool operator==(const Encoded&) const = default;
};

Encoded Expected(const Json& line) {
  return {line["tokens"].get<std::vector<int32_t>>(), line["mask"].get<std::string>()};
}

// mistral-finetune's v2 keeps the calls of earlier turns, whose results it drops; we drop both.
Encoded WithoutEarlierCalls(Encoded chat, const Tokenizer& tokenizer) {
  const int32_t call = *tokenizer.SpecialToken("[TOOL_CALLS]");
  const int32_t user = *tokenizer.SpecialToken("[INST]");
  while (true) {
    const auto last_user = std::find(chat.tokens.rbegin(), chat.tokens.rend(), user);
    const size_t turns = static_cast<size_t>(chat.tokens.rend() - last_user);
    const size_t begin = chat.Find(call);
    if (begin >= turns) {
      return chat;
    }
    chat.Erase(begin, chat.Find(tokenizer.eos(), begin) + 1);
  }
}

// mistral-finetune's v7 refuses a system prompt, or loses it where there is no user; we encode it
// behind BOS.
Encoded WithoutSystemPrompt(Encoded chat, const Tokenizer& tokenizer) {
  const size_t begin = chat.Find(*tokenizer.SpecialToken("[SYSTEM_PROMPT]"));
  EXPECT_EQ(begin, 1U);
  chat.Erase(begin, chat.Find(*tokenizer.SpecialToken("[/SYSTEM_PROMPT]")) + 1);
  return chat;
}

TEST(UpstreamChats, AreEncodedAlikeButForTwoDeviations) {
  std::map<int, Json> samples;
  for (const Json& line : testing::ReadJsonLines(testing::Fixture("data/extended/samples.jsonl"))) {
    samples[line["case"]] = line["sample"];
  }
  std::map<std::pair<int, std::string>, Json> chats;
  for (const Json& line : testing::ReadJsonLines(testing::Fixture("data/extended/chats.jsonl"))) {
    chats[{line["case"], line["tokenizer"]}] = line;
  }
  std::map<std::string, int> counts;
  for (const Json& line :
       testing::ReadJsonLines(testing::Fixture("data/extended/upstream.jsonl"))) {
    const std::string name = line["tokenizer"];
    const int number = line["case"];
    const Tokenizer& tokenizer = testing::NamedTokenizer(name);
    const auto sample = ParseSample(SourceKind::kInstruct, samples.at(number).dump());
    ASSERT_TRUE(sample.ok()) << number;
    const auto encoded = EncodeConversation(tokenizer, std::get<Conversation>(*sample));
    const Encoded ours =
        encoded.ok() ? Encoded{encoded->tokens, MaskText(encoded->mask)} : Encoded{};
    SCOPED_TRACE(name + " " + std::to_string(number));
    if (line.contains("same")) {
      const Json& chat = chats.at({number, name});
      ++counts["same"];
      EXPECT_EQ(encoded.ok(), !chat.contains("error"));
      EXPECT_EQ(ours, chat.contains("error") ? Encoded{} : Expected(chat));
    } else if (name == "spm-v2") {
      ++counts["earlier calls"];
      EXPECT_EQ(ours, WithoutEarlierCalls(Expected(line), tokenizer));
    } else if (line.contains("error")) {
      ++counts["system prompt refused"];
      EXPECT_NE(line["message"].get<std::string>().find("system prompt"), std::string::npos);
      EXPECT_LT(WithoutSystemPrompt(ours, tokenizer).tokens.size(), ours.tokens.size());
    } else {
      ++counts["system prompt lost"];
      EXPECT_EQ(WithoutSystemPrompt(ours, tokenizer), Expected(line));
    }
  }
  EXPECT_EQ(counts,
            (std::map<std::string, int>{{"same", 377},
                                        {"earlier calls", 5},
                                        {"system prompt refused", 22},
                                        {"system prompt lost", 1}}));
}

}  // namespace
}  // namespace mft
