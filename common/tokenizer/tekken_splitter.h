// SPDX-License-Identifier: Apache-2.0
// Cuts text into the pieces that Tekken's byte-pair merges stay within (formats.md 1.4, 1.5).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/tokenizer/char_classes.h"

namespace mft {

// The pattern of every released Tekken file.
extern const std::string_view kTekkenPattern;

// The first place from `at` on, or the end of `text`, that is an end of a piece whatever stands
// around it: pieces of both sides are those of the whole.
size_t TekkenCut(std::string_view text, size_t at);

// Matches kTekkenPattern by hand: leftmost, first alternative that matches, as a backtracking
// engine does. Linear in the text. Threads: one object a thread; the text must outlive it.
class TekkenSplitter {
 public:
  // `text`: valid UTF-8.
  explicit TekkenSplitter(std::string_view text) : text_(text) {}
  // The next piece; empty at the end. Pieces are never empty before and make up the text.
  std::string_view Next();

 private:
  struct Char {
    CharClass kind;
    size_t end;  // where the next one begins
  };
  Char At(size_t at) const;
  size_t SkipWhile(size_t at, unsigned set) const;
  size_t LowerWord(size_t at) const;
  size_t UpperWord(size_t at) const;
  size_t Punctuation(size_t at) const;
  size_t WhiteSpace(size_t at) const;
  struct Letters {
    size_t end;
    bool ascii_follows;  // at the end is an ASCII character, or nothing
  };
  Letters AsciiLetters(size_t at) const;
  Letters AsciiWord(size_t at) const;
  bool AsciiIsLetter(size_t at) const {
    const CharClass kind = classes_[static_cast<uint8_t>(text_[at])];
    return kind == CharClass::kUpper || kind == CharClass::kLower;
  }
  size_t AsciiEnd(size_t at) const;
  size_t PieceEnd(size_t at) const;

  const CharClass* classes_ = CharClassTable();
  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace mft
