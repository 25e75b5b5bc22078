// SPDX-License-Identifier: Apache-2.0
// Texts that are encoded window by window give the ids of the whole.
#include "common/tokenizer/long_text.h"

#include <iterator>
#include <random>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "common/tokenizer/sentencepiece_tokenizer.h"
#include "common/tokenizer/tekken_splitter.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/support/fixtures.h"

namespace mft {
namespace {

constexpr const char* kSpm = "mistral_instruct_tokenizer_240323.model.v3";

// Words, digits, runs of spaces and line ends, marks behind spaces, and scripts without spaces.
std::string Mixed(size_t bytes, uint32_t seed) {
  static constexpr const char* kParts[] = {" ",
                                           "  ",
                                           "\n",
                                           "\r\n",
                                           " the",
                                           "Word",
                                           " x",
                                           "x ",
                                           "42",
                                           ".",
                                           "//\n",
                                           " \xCC\x81",
                                           "e\xCC\x81 ",
                                           "\xC3\xA9t\xC3\xA9",
                                           "\xE4\xB8\xAD\xE6\x96\x87",
                                           "\xF0\x9F\x98\x80",
                                           "camelCase",
                                           "\t"};
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < bytes) {
    text += kParts[random() % std::size(kParts)];
  }
  return text;
}

std::string Repeated(std::string_view part, size_t bytes) {
  std::string text;
  while (text.size() < bytes) {
    text += part;
  }
  return text;
}

std::vector<std::string> Texts() {
  constexpr size_t kBytes = 9 * kTextWindowBytes / 8;  // the library takes seconds a megabyte
  return {Mixed(2 * kBytes, 1),
          Mixed(kTextWindowBytes, 2),
          Repeated("a ", kBytes),
          StrCat("x", Repeated("a ", kBytes)),
          Repeated("\xC3\xA9", kBytes),
          StrCat("x", Repeated("\xF0\x9F\x98\x80", kBytes)),
          Repeated("word\n", kBytes),
          Repeated("12", kBytes)};
}

TEST(LongText, SentencePieceGivesTheLibrarysIds) {
  const std::string path = testing::TokenizerFile(kSpm);
  const auto ours = LoadTokenizer(path).value();
  const auto library =
      LoadSentencePiece(path, TokenizerVersion::kV3, SentencePieceSearch::kLibrary).value();
  std::vector<std::string> texts = Texts();
  texts.resize(5);  // the others are odd for Tekken
  for (const std::string& text : texts) {
    std::vector<int32_t> expected = {7};
    std::vector<int32_t> ids = {7};
    library->Encode(text, expected);
    ours->Encode(text, ids);
    EXPECT_TRUE(ids == expected) << text.substr(0, 20);
  }
}

TEST(LongText, TekkenGivesTheIdsOfItsPieces) {
  const auto tokenizer = LoadTokenizer(testing::TokenizerFile("tekken_240911.json")).value();
  for (const std::string& text : Texts()) {
    std::vector<int32_t> expected = {7};
    TekkenSplitter splitter(text);
    for (std::string_view piece = splitter.Next(); !piece.empty(); piece = splitter.Next()) {
      tokenizer->Encode(piece, expected);
    }
    std::vector<int32_t> ids = {7};
    tokenizer->Encode(text, ids);
    EXPECT_TRUE(ids == expected) << text.substr(0, 20);
  }
}

TEST(LongText, TekkenIsCutOnlyBetweenPieces) {
  const std::string text = Mixed(100'000, 4);
  std::vector<bool> ends(text.size() + 1);
  TekkenSplitter splitter(text);
  size_t end = 0;
  for (std::string_view piece = splitter.Next(); !piece.empty(); piece = splitter.Next()) {
    end += piece.size();
    ends[end] = true;
  }
  ends[0] = true;
  for (size_t at = 0; at <= text.size(); ++at) {
    const size_t cut = TekkenCut(text, at);
    ASSERT_GE(cut, at);
    ASSERT_TRUE(ends[cut]) << at << " " << cut;
  }
}

TEST(LongText, WindowsAreBoundedAndInOrder) {
  const std::string text(3 * kTextWindowBytes + 5, 'x');
  std::vector<size_t> sizes;
  std::vector<int32_t> out;
  const auto encode = [&](std::string_view window, bool first) {
    EXPECT_EQ(first, sizes.empty());
    sizes.push_back(window.size());
    out.insert(out.end(), window.size() / 2, 1);
    return true;
  };
  EXPECT_TRUE(EncodeInWindows(
      text, [](size_t at) { return at + 3; }, encode, out));
  EXPECT_EQ(
      sizes,
      (std::vector<size_t>{kTextWindowBytes + 3, kTextWindowBytes + 3, kTextWindowBytes - 1}));
  EXPECT_LT(out.capacity(), text.size() / 2 * 9 / 8) << "never doubled";
  EXPECT_FALSE(EncodeInWindows(
      text, [](size_t at) { return at; }, [](std::string_view, bool) { return false; }, out));
}

}  // namespace
}  // namespace mft
