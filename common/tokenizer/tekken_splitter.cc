// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/tekken_splitter.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace mft {

const std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {
constexpr unsigned Bit(CharClass kind) {
  return 1U << static_cast<unsigned>(kind);
}
constexpr unsigned kUncased = Bit(CharClass::kLetter) | Bit(CharClass::kMark);
// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], [\p{Ll}\p{Lm}\p{Lo}\p{M}], [^\r\n\p{L}\p{N}], [^\s\p{L}\p{N}],
// \s
constexpr unsigned kUpperSet = Bit(CharClass::kUpper) | kUncased;
constexpr unsigned kLowerSet = Bit(CharClass::kLower) | kUncased;
constexpr unsigned kPrefixSet =
    Bit(CharClass::kOther) | Bit(CharClass::kMark) | Bit(CharClass::kSpace);
constexpr unsigned kPunctuationSet = Bit(CharClass::kOther) | Bit(CharClass::kMark);
constexpr unsigned kSpaceSet = Bit(CharClass::kSpace) | Bit(CharClass::kLineEnd);

constexpr bool In(unsigned set, CharClass kind) {
  return (set & Bit(kind)) != 0;
}
}  // namespace

// A digit is a piece of its own, no alternative takes a space behind a letter, and none looks back.
size_t TekkenCut(std::string_view text, size_t at) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto is_end = [&] {
    return at > 0 && (is_digit(text[at - 1]) || (is_letter(text[at - 1]) && text[at] == ' '));
  };
  while (at < text.size() && !is_end()) {
    ++at;
  }
  return at;
}

TekkenSplitter::Char TekkenSplitter::At(size_t at) const {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text_[i])); };
  const uint32_t first = byte(at);
  if (first < 0x80) {
    return {classes_[first], at + 1};
  }
  // Never past the end, even where the text is not what it should be.
  const size_t length = std::min<size_t>(first < 0xE0   ? 2
                                         : first < 0xF0 ? 3
                                                        : 4,
                                         text_.size() - at);
  uint32_t code = first & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    code = code << 6 | (byte(at + i) & 0x3F);
  }
  return {code < 0x110000 ? classes_[code] : CharClass::kOther, at + length};
}

size_t TekkenSplitter::SkipWhile(size_t at, unsigned set) const {
  while (at < text_.size()) {
    const Char next = At(at);
    if (!In(set, next.kind)) {
      break;
    }
    at = next.end;
  }
  return at;
}

// End of [upper set]*[lower set]+ at `at`, or `at` where that does not match.
size_t TekkenSplitter::LowerWord(size_t at) const {
  size_t uncased_end = at;  // of the last character that is in both sets
  size_t upper_end = at;
  while (upper_end < text_.size()) {
    const Char next = At(upper_end);
    if (!In(kUpperSet, next.kind)) {
      break;
    }
    upper_end = next.end;
    uncased_end = In(kUncased, next.kind) ? upper_end : uncased_end;
  }
  const size_t end = SkipWhile(upper_end, kLowerSet);
  // Without a lower-case letter after the run, the run gives back what follows its last character
  // that the second set takes as well.
  return end > upper_end ? end : uncased_end;
}

// End of [upper set]+[lower set]*, where LowerWord does not match: nothing of the second set
// follows.
size_t TekkenSplitter::UpperWord(size_t at) const {
  return SkipWhile(at, kUpperSet);
}

// End of [^\s\p{L}\p{N}]+[\r\n/]*; a slash is one of the first set.
size_t TekkenSplitter::Punctuation(size_t at) const {
  size_t end = SkipWhile(at, kPunctuationSet);
  if (end > at) {
    while (end < text_.size() && (text_[end] == '\r' || text_[end] == '\n' || text_[end] == '/')) {
      ++end;
    }
  }
  return end;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ at white space.
size_t TekkenSplitter::WhiteSpace(size_t at) const {
  size_t line_end = at;
  size_t last = at;  // where the run's last character begins
  size_t end = at;
  while (end < text_.size()) {
    const Char next = At(end);
    if (!In(kSpaceSet, next.kind)) {
      break;
    }
    last = end;
    end = next.end;
    line_end = next.kind == CharClass::kLineEnd ? end : line_end;
  }
  if (line_end > at) {
    return line_end;
  }
  // The last space belongs to what follows.
  return end < text_.size() && last > at ? last : end;
}

// Lengths of a run of upper-case letters at `at` and of lower-case letters after it, ASCII only.
TekkenSplitter::Letters TekkenSplitter::AsciiLetters(size_t at) const {
  const size_t size = text_.size();
  const auto kind = [&](size_t i) { return classes_[static_cast<uint8_t>(text_[i])]; };
  size_t end = at;
  while (end < size && static_cast<uint8_t>(text_[end]) < 0x80 && kind(end) == CharClass::kUpper) {
    ++end;
  }
  while (end < size && static_cast<uint8_t>(text_[end]) < 0x80 && kind(end) == CharClass::kLower) {
    ++end;
  }
  const bool ascii = end == size || static_cast<uint8_t>(text_[end]) < 0x80;
  return {end, ascii};
}

namespace {
constexpr uint64_t kEachByte = 0x0101010101010101;
constexpr uint64_t kHighBits = 0x80 * kEachByte;

uint64_t EightBytes(const char* at) {
  static_assert(std::endian::native == std::endian::little, "the first byte is the lowest");
  uint64_t bytes;
  std::memcpy(&bytes, at, sizeof(bytes));
  return bytes;
}

// Bit i: the high bit of byte i.
unsigned HighBits(uint64_t bytes) {
  return static_cast<unsigned>(((bytes & kHighBits) >> 7) * 0x0102040810204080 >> 56);
}

// Bit i: byte i is one of the 26 ASCII characters from `first` on. Sums of seven bits do not reach
// the next byte.
unsigned LettersFrom(uint64_t bytes, unsigned first) {
  const uint64_t low = bytes & ~kHighBits;
  const uint64_t from = low + (0x80 - first) * kEachByte;
  const uint64_t past = low + (0x80 - first - 26) * kEachByte;
  return HighBits(from & ~past & ~bytes);
}
}  // namespace

// As AsciiLetters, at the character before the letters if there is one: words have no length that
// a branch could be predicted by, so sixteen bytes are looked at together.
TekkenSplitter::Letters TekkenSplitter::AsciiWord(size_t at) const {
  constexpr size_t kAtOnce = 16;
  if (text_.size() - at < kAtOnce) {
    return AsciiLetters(at + (AsciiIsLetter(at) ? 0 : 1));
  }
  const uint64_t near = EightBytes(text_.data() + at);
  const uint64_t far = EightBytes(text_.data() + at + 8);
  const unsigned upper = LettersFrom(near, 'A') | LettersFrom(far, 'A') << 8;
  const unsigned lower = LettersFrom(near, 'a') | LettersFrom(far, 'a') << 8;
  const unsigned others = HighBits(near) | HighBits(far) << 8;  // not ASCII
  const unsigned before = ~(upper | lower) & 1;
  const auto uppers = static_cast<unsigned>(std::countr_one(upper >> before));
  const unsigned letters =
      before + uppers + static_cast<unsigned>(std::countr_one(lower >> (before + uppers)));
  if (letters == kAtOnce) {
    return AsciiLetters(at + before);
  }
  return {at + letters, (others >> letters & 1) == 0};
}

// The end of a piece that begins with an ASCII character, where the first two alternatives are
// decided by ASCII alone; `at` for any other.
size_t TekkenSplitter::AsciiEnd(size_t at) const {
  const CharClass first = classes_[static_cast<uint8_t>(text_[at])];
  if (first == CharClass::kNumber) {
    return at + 1;
  }
  if (first == CharClass::kLineEnd) {
    return WhiteSpace(at);
  }
  const Letters word = AsciiWord(at);
  if (!word.ascii_follows) {
    return at;  // a mark or letter may belong to the piece
  }
  if (word.end > at + 1 || AsciiIsLetter(at)) {
    return word.end;
  }
  if (first == CharClass::kSpace) {
    const bool punctuation = text_[at] == ' ' && at + 1 < text_.size() &&
                             classes_[static_cast<uint8_t>(text_[at + 1])] == CharClass::kOther;
    return punctuation ? Punctuation(at + 1) : WhiteSpace(at);
  }
  return Punctuation(at);
}

size_t TekkenSplitter::PieceEnd(size_t at) const {
  if (static_cast<uint8_t>(text_[at]) < 0x80) {
    if (const size_t end = AsciiEnd(at); end > at) {
      return end;
    }
  }
  const Char first = At(at);
  const bool prefix = In(kPrefixSet, first.kind) && first.end < text_.size();
  if (prefix) {
    if (const size_t end = LowerWord(first.end); end > first.end) {
      return end;
    }
  }
  if (const size_t end = LowerWord(at); end > at) {
    return end;
  }
  if (prefix) {
    if (const size_t end = UpperWord(first.end); end > first.end) {
      return end;
    }
  }
  if (const size_t end = UpperWord(at); end > at) {
    return end;
  }
  if (first.kind == CharClass::kNumber) {
    return first.end;
  }
  if (text_[at] == ' ') {
    if (const size_t end = Punctuation(first.end); end > first.end) {
      return end;
    }
  }
  if (In(kPunctuationSet, first.kind)) {
    return Punctuation(at);
  }
  return WhiteSpace(at);
}

std::string_view TekkenSplitter::Next() {
  if (position_ >= text_.size()) {
    return {};
  }
  const size_t begin = position_;
  position_ = PieceEnd(begin);
  return text_.substr(begin, position_ - begin);
}

}  // namespace mft
