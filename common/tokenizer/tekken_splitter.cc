// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/tekken_splitter.h"

#include <algorithm>

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

// The end of a piece of ASCII letters with at most one character before them, or of a digit, which
// most are; `at` for any other. What follows it is ASCII or nothing, so that no alternative takes
// more.
size_t TekkenSplitter::AsciiEnd(size_t at) const {
  const auto kind = [&](size_t i) {
    const auto byte = static_cast<uint8_t>(text_[i]);
    return byte < 0x80 ? classes_[byte] : CharClass::kMark;  // no ASCII character is a mark
  };
  const size_t size = text_.size();
  const CharClass first = kind(at);
  if (first == CharClass::kNumber || first == CharClass::kMark) {
    return first == CharClass::kNumber ? at + 1 : at;
  }
  size_t end = In(kPrefixSet, first) ? at + 1 : at;
  const size_t letters = end;
  while (end < size && kind(end) == CharClass::kUpper) {
    ++end;
  }
  while (end < size && kind(end) == CharClass::kLower) {
    ++end;
  }
  return end > letters && (end == size || kind(end) != CharClass::kMark) ? end : at;
}

size_t TekkenSplitter::PieceEnd(size_t at) const {
  if (const size_t end = AsciiEnd(at); end > at) {
    return end;
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
