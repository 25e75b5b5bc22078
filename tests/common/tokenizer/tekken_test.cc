// SPDX-License-Identifier: Apache-2.0
// Tekken against the expected values of the library that it replaces.
#include <algorithm>
#include <functional>
#include <random>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "common/tokenizer/byte_pairs.h"
#include "common/tokenizer/char_classes.h"
#include "common/tokenizer/regex_splitter.h"
#include "common/tokenizer/tekken_file.h"
#include "common/tokenizer/tekken_splitter.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/utf8_replace.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

class TekkenV3 : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = LoadTokenizer(testing::TokenizerFile("tekken_240718.json")).value().release();
  }
  static void TearDownTestSuite() { delete tokenizer_; }
  static std::vector<int32_t> Encode(std::string_view text) {
    std::vector<int32_t> ids;
    tokenizer_->Encode(text, ids);
    return ids;
  }
  static const Tokenizer* tokenizer_;
};
const Tokenizer* TekkenV3::tokenizer_ = nullptr;

TEST_F(TekkenV3, KnowsItsControlTokens) {
  EXPECT_EQ(tokenizer_->version(), TokenizerVersion::kV3);
  EXPECT_EQ(tokenizer_->vocab_size(), 131072);
  EXPECT_EQ(tokenizer_->bos(), 1);
  EXPECT_EQ(tokenizer_->eos(), 2);
  EXPECT_EQ(tokenizer_->SpecialToken("[TOOL_CALLS]").value(), 9);
  EXPECT_EQ(tokenizer_->SpecialToken("<SPECIAL_999>").value(), 999);
  EXPECT_EQ(tokenizer_->SpecialToken("[THINK]").status().code(), Code::kNotFound);
  EXPECT_EQ(Encode("[INST]"), (std::vector<int32_t>{1091, 3174, 3074, 1093}));
  EXPECT_EQ(tokenizer_->file_hash(),
            "eccd1665d2e477697c33cb7f0daa6f6dfefc57a0a6bceb66d4be52952f827516");
}

// Quadratic merging would take minutes.
TEST_F(TekkenV3, LongPiecesTakeLinearithmicTime) {
  const std::string text(1 << 20, 'a');
  const auto ids = Encode(text);
  EXPECT_EQ(tokenizer_->Decode(ids).value(), text);
  EXPECT_LE(ids.size(), text.size() / 2);
}

// The two ways to merge agree: parts of one long word, whole and cut where the long way begins.
TEST(BytePairs, ShortAndLongPiecesMergeAlike) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.emplace_back(1, static_cast<char>(byte));
  }
  for (const char* token : {"ab", "bc", "aa", "abc", "cab", "bcab", "aaaa", "abcabc"}) {
    tokens.emplace_back(token);
  }
  const BytePairs pairs(tokens);
  uint32_t state = 7;
  for (int round = 0; round < 300; ++round) {
    std::string piece;
    while (piece.size() < 128) {
      state = state * 1664525 + 1013904223;
      piece.push_back(static_cast<char>('a' + (state >> 24) % 3));
    }
    const auto encode = [&](const std::string& text) {
      std::vector<int32_t> ids(text.size());
      ids.resize(static_cast<size_t>(pairs.Encode(text, 0, ids.data()) - ids.data()));
      return ids;
    };
    const std::vector<int32_t> small = encode(piece);
    // A byte that merges with nothing, then the same piece: more than a short one.
    const std::vector<int32_t> large = encode("-" + piece);
    ASSERT_EQ(large.front(), '-');
    EXPECT_EQ(small, std::vector<int32_t>(large.begin() + 1, large.end())) << piece;
  }
}

// tiktoken's rule, word for word.
std::vector<int32_t> PlainMerges(const std::vector<std::string>& tokens, std::string_view text) {
  const auto rank = [&](const std::string& part) {
    return static_cast<size_t>(std::find(tokens.begin(), tokens.end(), part) - tokens.begin());
  };
  std::vector<std::string> parts;
  for (const char byte : text) {
    parts.emplace_back(1, byte);
  }
  while (true) {
    size_t best = 0;
    size_t best_rank = tokens.size();
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const size_t merged = rank(parts[i] + parts[i + 1]);
      best = merged < best_rank ? i : best;
      best_rank = std::min(best_rank, merged);
    }
    if (best_rank == tokens.size()) {
      break;
    }
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::vector<int32_t> ranks;
  for (const std::string& part : parts) {
    ranks.push_back(static_cast<int32_t>(rank(part)));
  }
  return ranks;
}

// Tokens in any order: parts of higher rank, tokens that no merge makes, and such as another way to
// cut them would make.
TEST(BytePairs, MergesOfRandomVocabulariesAreThosePlainlyMade) {
  std::mt19937 random(5);
  const auto text = [&](size_t least, size_t most) {
    std::string letters;
    for (size_t left = least + random() % (most - least + 1); left > 0; --left) {
      letters.push_back(static_cast<char>('a' + random() % 3));
    }
    return letters;
  };
  for (int round = 0; round < 100; ++round) {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) {
      tokens.emplace_back(1, static_cast<char>(byte));
    }
    for (size_t count = 10 + random() % 40; count > 0; --count) {
      const std::string token = text(2, 5);
      if (std::find(tokens.begin(), tokens.end(), token) == tokens.end()) {
        tokens.push_back(token);
      }
    }
    const BytePairs pairs(tokens);
    for (int piece = 0; piece < 100; ++piece) {
      const std::string word = text(6, 30);
      std::vector<int32_t> ids(word.size());
      ids.resize(static_cast<size_t>(pairs.Encode(word, 0, ids.data()) - ids.data()));
      ASSERT_EQ(ids, PlainMerges(tokens, word)) << word;
    }
  }
}

std::vector<std::string> Pieces(std::string_view text) {
  TekkenSplitter splitter(text);
  std::vector<std::string> pieces;
  for (auto piece = splitter.Next(); !piece.empty(); piece = splitter.Next()) {
    pieces.emplace_back(piece);
  }
  return pieces;
}

TEST(TekkenSplitter, CutsAsARegexEngineDoes) {
  const auto regex = RegexSplitter::Create(std::string(kTekkenPattern)).value();
  constexpr std::string_view kParts[] = {"a",
                                         "bc",
                                         "Z",
                                         "XY",
                                         "7",
                                         " ",
                                         "  ",
                                         "\n",
                                         "\r",
                                         "\t",
                                         ".",
                                         "/",
                                         "'",
                                         "\xC3\xA9",
                                         "\xC3\x89",
                                         "\xCC\x81",
                                         "\xE4\xBD\xA0",
                                         "\xC2\xA0"};
  uint32_t state = 11;
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i) {
      state = state * 1664525 + 1013904223;
      text += kParts[(state >> 16) % std::size(kParts)];
    }
    std::vector<std::string> expected;
    regex->Split(text, [&](std::string_view piece) { expected.emplace_back(piece); });
    ASSERT_EQ(Pieces(text), expected) << text;
  }
}

TEST(TekkenSplitter, TakesTheFirstAlternativeThatMatches) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(Pieces(""), Words{});
  EXPECT_EQ(Pieces("Hello, world 42"), (Words{"Hello", ",", " world", " ", "4", "2"}));
  EXPECT_EQ(Pieces("HelloWorldABC"), (Words{"Hello", "World", "ABC"}));
  EXPECT_EQ(Pieces("a  b \n\n c  "), (Words{"a", " ", " b", " \n\n", " c", "  "}));
  EXPECT_EQ(Pieces("!!\u0301a"), (Words{"!!\u0301", "a"}));  // a mark is punctuation there
  EXPECT_EQ(Pieces("!!\u4e00a"), (Words{"!!", "\u4e00a"}));
  EXPECT_EQ(Pieces("\u4e00ABC!"), (Words{"\u4e00", "ABC", "!"}));
  EXPECT_EQ(Pieces("x //\n/y"), (Words{"x", " //\n/", "y"}));
}

std::string SmallFile(const std::function<void(Json&)>& change);

std::vector<std::string> RegexPieces(const std::string& pattern, std::string_view text) {
  std::vector<std::string> pieces;
  RegexSplitter::Create(pattern).value()->Split(
      text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

// The scanner against a backtracking engine, on characters that Unicode 14 and 16 class alike.
TEST(TekkenSplitter, AgreesWithARegexEngine) {
  const std::vector<std::string> alphabet = {
      "a",      "b",      "Z",      "Q",      "\u00e9",     "\u00c9", "\u01c5", "\u02b0", "\u4e00",
      "\u05d0", "\u0301", "\u0e31", "1",      "\u00bd",     "\u2167", " ",      " ",      "\t",
      "\n",     "\r",     "\u00a0", "\u2028", "\u3000",     "\u180e", "\u200b", ".",      "!",
      "/",      "-",      "'",      "\u20ac", "\U0001F642", "\u00ad", "_"};
  const auto regex = RegexSplitter::Create(std::string(kTekkenPattern)).value();
  uint32_t state = 11;
  const auto next = [&] { return (state = state * 1664525 + 1013904223) >> 16; };
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (uint32_t i = next() % 12; i > 0; --i) {
      text += alphabet[next() % alphabet.size()];
    }
    std::vector<std::string> expected;
    regex->Split(text, [&](std::string_view piece) { expected.emplace_back(piece); });
    ASSERT_EQ(Pieces(text), expected) << text;
  }
}

TEST(RegexSplitter, LeavesOutWhatNothingMatches) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(RegexPieces("[a-z]+", "ab1cd\u00e9e"), (Words{"ab", "cd", "e"}));
  EXPECT_EQ(RegexPieces("x*", "axb\u00e9"), (Words{"", "x", "", ""}));
  EXPECT_EQ(RegexPieces("\\S+|[\\s]+", "a\u180eb \u3000c"), (Words{"a\u180eb", " \u3000", "c"}));
  EXPECT_FALSE(RegexSplitter::Create("(").ok());
  EXPECT_FALSE(RegexSplitter::Create("[a").ok());
  EXPECT_FALSE(RegexSplitter::Create("a\\C").ok());
  EXPECT_FALSE(RegexSplitter::Create("\xFF").ok());
  EXPECT_EQ(RegexPieces("(?<=a)b", "ab bb ab"), (Words{"b", "b"})) << "looks back beyond pieces";
}

TEST(RegexSplitter, WhiteSpaceIsThatOfUnicode) {
  using Words = std::vector<std::string>;
  const std::string text =
      "a\u180Eb\u00A0c\u2003\u0085d\u200Be\x1F\x0B"
      "f";
  const Words words = {"a\u180Eb", "c", "d\u200Be\x1F", "f"};
  EXPECT_EQ(RegexPieces("\\S+", text), words);
  EXPECT_EQ(RegexPieces("[^\\s]+", text), words);
  EXPECT_EQ(RegexPieces("\\s+", text), (Words{"\u00A0", "\u2003\u0085", "\x0B"}));
  EXPECT_EQ(RegexPieces("[^]\\s[:punct:]\\s]+", "a]b c.s d"), (Words{"a", "b", "c", "s", "d"}));
}

TEST(RegexSplitter, WhereTheEngineGivesUpTheRestIsOnePiece) {
  using Words = std::vector<std::string>;
  const std::string text = "b " + std::string(200, 'a') + "!";
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(RegexPieces("b|(?:a|aa|aaa)+(?=\\?| $)", text), (Words{"b", text.substr(1)}));
  EXPECT_EQ(RegexPieces("b|(?:a|aa|aaa)+(?=\\?| $)", text).size(), 2U);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_NE(said.find("the rest of such a text is one piece"), std::string::npos) << said;
  EXPECT_EQ(RegexPieces(".", "a\xE2\x82"), (Words{"a\xE2\x82"})) << "no UTF-8";
  // More than the stack of the machine code holds.
  const std::string deep(100'000, 'a');
  EXPECT_EQ(RegexPieces("(?:(a)|b)+", deep + " " + deep), (Words{deep, deep}));
}

TEST(LoadTekken, OtherPatternsAreMatchedByPcre2) {
  const testing::TempDir dir;
  const auto load = [&](const std::string& pattern) {
    return LoadTokenizer(dir.Write(
        "tekken.json", SmallFile([&](Json& file) { file["config"]["pattern"] = pattern; })));
  };
  std::vector<int32_t> ids;
  load("ab|.").value()->Encode("abaab", ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{260, 4 + 'a', 260}));
  ids.clear();
  load("a|b").value()->Encode("ab", ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{4 + 'a', 4 + 'b'}));
  const auto bad = load("(a");
  EXPECT_EQ(bad.status().code(), Code::kInvalidArgument);
  EXPECT_NE(bad.status().message().find("config.pattern"), std::string::npos);
}

// A file of 256 bytes, "ab" and three special tokens, with one thing changed.
std::string SmallFile(const std::function<void(Json&)>& change) {
  Json file = {{"config",
                {{"pattern", std::string(kTekkenPattern)},
                 {"num_vocab_tokens", 258},
                 {"default_vocab_size", 261},
                 {"default_num_special_tokens", 4},
                 {"version", "v11"}}},
               {"vocab", Json::array()},
               {"special_tokens", Json::array()}};
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t byte = 0; byte < 256; ++byte) {
    const std::string text = {kAlphabet[byte >> 2], kAlphabet[byte << 4 & 63], '=', '='};
    file["vocab"].push_back({{"rank", byte}, {"token_bytes", text}, {"token_str", nullptr}});
  }
  file["vocab"].push_back({{"rank", 256}, {"token_bytes", "YWI="}, {"token_str", "ab"}});
  for (const char* name : {"<unk>", "<s>", "</s>"}) {
    const size_t rank = file["special_tokens"].size();
    file["special_tokens"].push_back({{"rank", rank}, {"token_str", name}, {"is_control", true}});
  }
  change(file);
  return file.dump();
}

TEST(TekkenFile, ReadsWhatItShould) {
  const TekkenFile file = ParseTekkenFile(SmallFile([](Json&) {})).value();
  EXPECT_EQ(file.version, TokenizerVersion::kV11);
  EXPECT_EQ(file.vocab_size, 261);
  EXPECT_EQ(file.tokens.size(), 257U);
  EXPECT_EQ(file.tokens[0], std::string(1, '\0'));
  EXPECT_EQ(file.tokens[255], "\xFF");
  EXPECT_EQ(file.tokens[256], "ab");
  EXPECT_EQ(file.special, (std::vector<std::string>{"<unk>", "<s>", "</s>", "<SPECIAL_3>"}));
  EXPECT_TRUE(file.model_settings.is_null());
}

struct Hostile {
  const char* name;
  std::function<void(Json&)> change;
  const char* message;  // part of it
};

class HostileTekken : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileTekken, IsOneClearError) {
  const auto file = ParseTekkenFile(SmallFile(GetParam().change));
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), Code::kInvalidArgument);
  EXPECT_NE(file.status().message().find(GetParam().message), std::string::npos)
      << file.status().message();
}

INSTANTIATE_TEST_SUITE_P(
    Files,
    HostileTekken,
    ::testing::Values(
        Hostile{"NoConfig", [](Json& f) { f.erase("config"); }, "no \"config\" object"},
        Hostile{"ConfigList", [](Json& f) { f["config"] = {1}; }, "no \"config\" object"},
        Hostile{"NoPattern", [](Json& f) { f["config"].erase("pattern"); }, "pattern"},
        Hostile{"UnknownVersion", [](Json& f) { f["config"]["version"] = "v4"; }, "\"v4\""},
        Hostile{"SentencePieceVersion", [](Json& f) { f["config"]["version"] = "v2"; }, "\"v2\""},
        Hostile{"HugeVocabulary",
                [](Json& f) { f["config"]["default_vocab_size"] = int64_t{1} << 40; },
                "default_vocab_size 1099511627776"},
        Hostile{"HugeSpecial",
                [](Json& f) {
                  f["config"]["default_vocab_size"] = 4'000'256;
                  f["config"]["default_num_special_tokens"] = 4'000'000;
                },
                "default_num_special_tokens 4000000"},
        Hostile{"NegativeSpecial",
                [](Json& f) { f["config"]["default_num_special_tokens"] = -4; },
                "default_num_special_tokens -4"},
        Hostile{"ShortVocabulary", [](Json& f) { f["vocab"].erase(256); }, "vocab has 256 entries"},
        Hostile{"NoVocabulary", [](Json& f) { f.erase("vocab"); }, "vocab has 0 entries"},
        Hostile{
            "VocabularyOfNumbers", [](Json& f) { f["vocab"][0] = 7; }, "vocab[0] is not an object"},
        Hostile{"VocabularyOfLists",
                [](Json& f) { f["vocab"][0] = Json::array({1}); },
                "vocab[0] is not an object"},
        Hostile{"VocabularyNoList", [](Json& f) { f["vocab"] = "x"; }, "vocab is no list"},
        Hostile{"VocabularyAnObject",
                [](Json& f) {
                  f["vocab"] = {{"0", 1}};
                },
                "vocab is no list"},
        Hostile{"BytesOfNumbers",
                [](Json& f) { f["vocab"][9]["token_bytes"] = 7; },
                "vocab[9]: token_bytes is no text"},
        Hostile{"BytesOfLists",
                [](Json& f) { f["vocab"][9]["token_bytes"] = Json::array({"YWI="}); },
                "vocab[9]: token_bytes is no text"},
        Hostile{"FractionalRank",
                [](Json& f) { f["vocab"][9]["rank"] = 9.0; },
                "vocab[9]: rank is no integer"},
        Hostile{"HugeRank",
                [](Json& f) { f["vocab"][9]["rank"] = UINT64_MAX; },
                "vocab[9]: rank is no integer"},
        Hostile{"ManySettings",
                [](Json& f) { f["model_settings_builder"] = std::vector<int>(5000); },
                "model_settings_builder has more than"},
        Hostile{"LongPattern",
                [](Json& f) { f["config"]["pattern"] = std::string(100'000, 'a'); },
                "pattern has 100000 bytes"},
        Hostile{"WrongRank", [](Json& f) { f["vocab"][7]["rank"] = 8; }, "vocab[7].rank is 8"},
        Hostile{"RankOfText", [](Json& f) { f["vocab"][7]["rank"] = "7"; }, "vocab[7]: "},
        Hostile{"NoBytes", [](Json& f) { f["vocab"][9].erase("token_bytes"); }, "vocab[9]: "},
        Hostile{"BadBase64",
                [](Json& f) { f["vocab"][256]["token_bytes"] = "YW!="; },
                "vocab[256].token_bytes"},
        Hostile{"CutBase64",
                [](Json& f) { f["vocab"][256]["token_bytes"] = "YWI"; },
                "vocab[256].token_bytes"},
        Hostile{"EmptyToken",
                [](Json& f) { f["vocab"][256]["token_bytes"] = ""; },
                "vocab[256].token_bytes"},
        Hostile{"LongToken",
                [](Json& f) { f["vocab"][256]["token_bytes"] = std::string(4'000'000, 'A'); },
                "vocab[256] has 3000000 bytes"},
        Hostile{"SameBytes",
                [](Json& f) { f["vocab"][256]["token_bytes"] = "AA=="; },
                "an entry before it"},
        Hostile{
            "NotTheByte", [](Json& f) { f["vocab"][1]["token_bytes"] = "YWI="; }, "not the byte 1"},
        Hostile{"SpecialPastTheEnd", [](Json& f) { f["special_tokens"][0]["rank"] = 4; }, "rank 4"},
        Hostile{"SpecialTwice",
                [](Json& f) { f["special_tokens"][0]["token_str"] = "<s>"; },
                "stands twice"},
        Hostile{
            "SpecialRankTwice", [](Json& f) { f["special_tokens"][0]["rank"] = 1; }, "have rank 1"},
        Hostile{"NoSpecial", [](Json& f) { f.erase("special_tokens"); }, "no special_tokens"},
        Hostile{"SettingsTooEarly",
                [](Json& f) {
                  f["model_settings_builder"] = {{"a", 1}};
                },
                "of v15"}),
    [](const auto& file) { return file.param.name; });

TEST(TekkenFile, WhatIsNoJsonIsOneClearError) {
  const std::string good = SmallFile([](Json&) {});
  for (size_t cut = 0; cut < good.size(); cut += 97) {
    EXPECT_FALSE(ParseTekkenFile(good.substr(0, cut)).ok()) << cut;
  }
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_FALSE(ParseTekkenFile(deep).ok());
  std::string nested = good;
  nested.insert(1, "\"x\":" + deep + ",");
  EXPECT_FALSE(ParseTekkenFile(nested).ok()) << "too deep, even where nobody looks";
  std::string unknown = good;
  unknown.insert(1,
                 R"("x": [[1, {"config": 2, "rank": "3"}], 1e400, -7, true], "y": {"vocab": []},)");
  EXPECT_FALSE(ParseTekkenFile(unknown).ok()) << "a number beyond all bounds";
  unknown.replace(unknown.find("1e400"), 5, "1e300");
  EXPECT_TRUE(ParseTekkenFile(unknown).ok()) << "an unknown member is passed over";
  std::string twice = good;
  twice.insert(1, R"("vocab": [],)");
  EXPECT_EQ(ParseTekkenFile(twice).status().message(), "\"vocab\" stands twice");
  EXPECT_FALSE(ParseTekkenFile("\xFF\xFE{}").ok());
  EXPECT_FALSE(ParseTekkenFile("[]").ok());
}

TEST(CharClasses, AreThoseOfTheOracle) {
  const CharClass* table = CharClassTable();
  std::string expected(0x110000, 'o');
  for (const Json& run :
       testing::ReadJsonLines(testing::Fixture("data/extended/char_classes.jsonl"))) {
    for (size_t code = run["from"]; code <= run["to"].get<size_t>(); ++code) {
      expected[code] = run["class"].get<std::string>()[0];
    }
  }
  constexpr std::string_view kNames = "oULBBNSR";  // letters and marks are one class there
  for (size_t code = 0; code < expected.size(); ++code) {
    ASSERT_EQ(kNames[static_cast<size_t>(table[code])], expected[code]) << code;
  }
  EXPECT_EQ(table[0x301], CharClass::kMark);
  EXPECT_EQ(table[0x4e00], CharClass::kLetter);
}

TEST(Utf8, BadBytesAreReplacedBySubpart) {
  const auto replaced = [](std::string_view bytes) {
    std::string out;
    AppendReplacingBadUtf8(bytes, out);
    return out;
  };
  EXPECT_EQ(replaced("a\xC3\xA9z"), "a\xC3\xA9z");
  EXPECT_EQ(replaced("\xF0\x9F\x99"), "\xEF\xBF\xBD");  // one subpart
  EXPECT_EQ(replaced("\xF0\x80\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(replaced("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate
  EXPECT_EQ(replaced("\xE2\x82(\xFF"), "\xEF\xBF\xBD(\xEF\xBF\xBD");
}

}  // namespace
}  // namespace mft
