// SPDX-License-Identifier: Apache-2.0
#include "worker/infer/text_stream.h"

#include <gtest/gtest.h>

namespace mft {
namespace {

// Every id is a byte; what is no whole character becomes U+FFFD, byte by byte, as SentencePiece
// does.
class ByteTokenizer final : public Tokenizer {
 public:
  TokenizerVersion version() const override { return TokenizerVersion::kV3; }
  int32_t vocab_size() const override { return 256; }
  int32_t bos() const override { return 0; }
  int32_t eos() const override { return 1; }
  void Encode(std::string_view text, std::vector<int32_t>& out) const override {
    for (const char c : text) {
      out.push_back(static_cast<uint8_t>(c));
    }
  }
  Result<int32_t> SpecialToken(std::string_view) const override { return NotFound("none"); }
  const Json& model_settings() const override { return settings_; }
  const std::string& file_hash() const override { return empty_; }
  const std::string& path() const override { return empty_; }

 protected:
  bool IsSpecial(int32_t) const override { return false; }
  Result<std::string> DecodeIds(std::span<const int32_t> ids, bool) const override {
    std::string text;
    for (size_t i = 0; i < ids.size();) {
      const int32_t first = ids[i];
      const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1;
      if (first >= 0x80 && (first < 0xC0 || i + length > ids.size())) {
        text += "\xEF\xBF\xBD";
        ++i;
        continue;
      }
      for (size_t j = 0; j < length; ++j) {
        text.push_back(static_cast<char>(ids[i + j]));
      }
      i += length;
    }
    return text;
  }

 private:
  std::string empty_;
  Json settings_;
};

std::vector<std::string> Pieces(std::string_view bytes) {
  const ByteTokenizer tokenizer;
  TextStream stream(tokenizer);
  std::vector<std::string> pieces;
  for (const char byte : bytes) {
    pieces.push_back(stream.Add(static_cast<uint8_t>(byte)).value());
  }
  pieces.push_back(stream.Finish().value());
  return pieces;
}

using Strings = std::vector<std::string>;

TEST(TextStream, AsciiComesAtOnce) {
  EXPECT_EQ(Pieces("ab"), (Strings{"a", "b", ""}));
}

TEST(TextStream, ACharacterComesWhole) {
  EXPECT_EQ(Pieces("é"), (Strings{"", "é", ""}));
  EXPECT_EQ(Pieces("a€b"), (Strings{"a", "", "", "€", "b", ""}));
  EXPECT_EQ(Pieces("😀!"), (Strings{"", "", "", "😀", "!", ""}));
}

TEST(TextStream, WhatNeverBecomesACharacterComesAtTheEnd) {
  EXPECT_EQ(Pieces("a\xF0\x9F"), (Strings{"a", "", "", "\xEF\xBF\xBD\xEF\xBF\xBD"}));
  EXPECT_EQ(Pieces("\xFFz"), (Strings{"", "\xEF\xBF\xBDz", ""}));
}

TEST(TextStream, StablePrefixEndsBeforeAnUnfinishedCharacter) {
  EXPECT_EQ(StablePrefix(""), 0U);
  EXPECT_EQ(StablePrefix("abc"), 3U);
  EXPECT_EQ(StablePrefix("ab\xC3"), 2U);
  EXPECT_EQ(StablePrefix("ab\xE2\x82"), 2U);
  EXPECT_EQ(StablePrefix("ab\xE2\x82\xAC"), 5U);
  EXPECT_EQ(StablePrefix("ab\xF0\x9F\x98"), 2U);
  EXPECT_EQ(StablePrefix("ab\xEF\xBF\xBD"), 2U);
}

}  // namespace
}  // namespace mft
