// SPDX-License-Identifier: Apache-2.0
// The ids that our own search, cut and cache give are those of the SentencePiece library.
#include <iterator>
#include <memory>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/tokenizer/sentencepiece_model.h"
#include "common/tokenizer/sentencepiece_splitter.h"
#include "common/tokenizer/sentencepiece_tokenizer.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/support/fixtures.h"

namespace mft {
namespace {

constexpr const char* kV1 = "tokenizer.model.v1";
constexpr const char* kV2 = "mistral_instruct_tokenizer_240216.model.v2";
constexpr const char* kV3 = "mistral_instruct_tokenizer_240323.model.v3";
constexpr const char* kV7 = "mistral_instruct_tokenizer_241114.model.v7";

std::string ModelBytes(const char* name) {
  return ReadFile(testing::TokenizerFile(name), size_t{1} << 24).value();
}

std::unique_ptr<Tokenizer> Library(const char* name) {
  return LoadSentencePiece(
             testing::TokenizerFile(name), TokenizerVersion::kV3, SentencePieceSearch::kLibrary)
      .value();
}

std::vector<int32_t> Encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> ids;
  tokenizer.Encode(text, ids);
  return ids;
}

std::string Utf8(uint32_t code) {
  std::string out;
  if (code < 0x80) {
    return {static_cast<char>(code)};
  }
  const int size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  out += static_cast<char>((0xF00 >> size & 0xFF) | code >> (6 * (size - 1)));
  for (int i = size - 2; i >= 0; --i) {
    out += static_cast<char>(0x80 | (code >> (6 * i) & 0x3F));
  }
  return out;
}

// Texts of pieces of the vocabulary, of neighbouring scripts, of few characters in long runs, of
// spaces and line ends, and of any characters at all.
class RandomText {
 public:
  RandomText(const SentencePieceModel& model, uint32_t seed)
      : pieces_(model.pieces), random_(seed) {}

  std::string Next() {
    std::string text;
    const int kind = Below(6);
    const int length = Below(kind == 5 ? 200 : 40);
    const uint32_t script = Below(0x30) * 0x80;
    for (int i = 0; i < length; ++i) {
      text += Part(kind, script);
    }
    return text;
  }

 private:
  int Below(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }

  std::string Part(int kind, uint32_t script) {
    static constexpr const char* kOdd[] = {
        " ", "  ", "\n", "\t", "\r", "\xE2\x96\x81", "[REF", "[/REF]", "<s>", "<0x0A>", "'\r"};
    switch (kind) {
      case 0:
        return pieces_[Below(static_cast<int>(pieces_.size()))].text;
      case 1:
        return Below(4) == 0 ? " " : pieces_[Below(2000)].text;
      case 2:
        return kOdd[Below(std::size(kOdd))];
      case 3:
        return Utf8(script + static_cast<uint32_t>(Below(0x80)));
      case 4: {
        const auto code = static_cast<uint32_t>(Below(0x110000));
        return code >= 0xD800 && code < 0xE000 ? "\xEF\xBF\xBD" : Utf8(code);
      }
      default:
        return std::string(1, "ab =-a0"[Below(7)]);
    }
  }

  const std::vector<SentencePieceModel::Piece>& pieces_;
  std::mt19937 random_;
};

class FastSentencePiece : public ::testing::TestWithParam<const char*> {};

TEST_P(FastSentencePiece, GivesTheLibrarysIds) {
  const auto library = Library(GetParam());
  const auto tokenizer = LoadTokenizer(testing::TokenizerFile(GetParam())).value();
  const auto model = ReadSentencePieceModel(ModelBytes(GetParam()));
  ASSERT_TRUE(model.has_value());
  RandomText random(*model, 7);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = random.Next();
    ASSERT_EQ(Encode(*tokenizer, text), Encode(*library, text)) << i << ": " << text;
  }
}

TEST_P(FastSentencePiece, CutsTextsOfItsModel) {
  const auto model = ReadSentencePieceModel(ModelBytes(GetParam()));
  ASSERT_TRUE(model.has_value());
  const SentencePieceSplitter splitter(*model);
  const auto parts = [&](const std::string& text) {
    std::vector<std::string> all;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = splitter.End(text, begin);
      all.push_back(text.substr(begin, end - begin));
      begin = end;
    }
    return all;
  };
  EXPECT_EQ(parts(" the cat  sat.\n"),
            (std::vector<std::string>{" the", " cat", "  sat", ".", "\n"}));
}

INSTANTIATE_TEST_SUITE_P(Models, FastSentencePiece, ::testing::Values(kV1, kV2, kV3, kV7));

TEST(FastSentencePieceText, LeavesMalformedTextToTheLibrary) {
  const auto library = Library(kV3);
  const auto tokenizer = LoadTokenizer(testing::TokenizerFile(kV3)).value();
  for (const std::string_view text :
       {"word \xFF word", "cut \xE2\x96", "\xC0\x80", "\xED\xA0\x80"}) {
    EXPECT_EQ(Encode(*tokenizer, text), Encode(*library, text));
  }
}

TEST(FastSentencePieceText, ThreadsShareATokenizer) {
  const auto tokenizer = LoadTokenizer(testing::TokenizerFile(kV3)).value();
  const std::string text = "Threads share a tokenizer, not a cache; every one gets the same ids.";
  const std::vector<int32_t> expected = Encode(*tokenizer, text);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int repeat = 0; repeat < 200; ++repeat) {
        EXPECT_EQ(Encode(*tokenizer, text), expected);
      }
    });
  }
}

// normalizer_spec and trainer_spec fields on the wire; the later value counts.
TEST(ReadSentencePieceModel, LeavesOtherModelsToTheLibrary) {
  const std::string bytes = ModelBytes(kV3);
  ASSERT_TRUE(ReadSentencePieceModel(bytes).has_value());
  const std::string fields[] = {
      std::string("\x1A\x02\x18\x00", 4),           // no dummy prefix
      std::string("\x1A\x02\x20\x01", 4),           // extra spaces are removed
      std::string("\x1A\x02\x28\x00", 4),           // spaces are not U+2581
      std::string("\x12\x02\x18\x01", 4),           // unigram
      std::string("\x12\x03\x98\x02\x00", 5),       // no byte fallback
      std::string("\x12\x03\xC0\x01\x01", 5),       // spaces are suffixes
      std::string("\x0A\x05\x0A\x01x\x18\x05", 7),  // an unused piece
      std::string("\x0A\x0A\x0A\x06\xE2\x96\x81"
                  "[x]\x18\x04",
                  12),  // user-defined with a space
      std::string("\x0A\x06\x0A\x04\xF0\x9F\x99\x82", 8) +
          std::string("\x0A\x06\x0A\x04\xF0\x9F\x99\xFF", 8),        // no UTF-8
      std::string("\x0A\x09\x0A\x03\xE4\xB8\x80\x15\x00\x00", 11)};  // cut off
  for (const std::string& field : fields) {
    EXPECT_FALSE(ReadSentencePieceModel(bytes + field).has_value()) << &field - fields;
  }
}

}  // namespace
}  // namespace mft
