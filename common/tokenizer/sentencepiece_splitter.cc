// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/sentencepiece_splitter.h"

#include <algorithm>

namespace mft {

namespace {
uint64_t Pair(uint32_t first, uint32_t second) {
  return uint64_t{first} << 32 | second;
}
}  // namespace

SentencePieceSplitter::SentencePieceSplitter(const SentencePieceModel& model)
    : user_defined_(model.user_defined) {
  for (const auto& piece : model.pieces) {
    Utf8Character before = SentencePieceCharacter(piece.text, 0);
    for (size_t at = before.size; at < piece.text.size();) {
      const Utf8Character character = SentencePieceCharacter(piece.text, at);
      joins_.push_back(Pair(before.code, character.code));
      at += character.size;
      before = character;
    }
  }
  std::sort(joins_.begin(), joins_.end());
  joins_.erase(std::unique(joins_.begin(), joins_.end()), joins_.end());
  for (uint32_t first = 0; first < 128; ++first) {
    for (uint32_t second = 0; second < 128; ++second) {
      ascii_joins_[first][second] =
          Joins(SentencePieceCharacter(std::string(1, static_cast<char>(first)), 0).code,
                SentencePieceCharacter(std::string(1, static_cast<char>(second)), 0).code);
    }
  }
}

bool SentencePieceSplitter::Joins(uint32_t first, uint32_t second) const {
  return std::binary_search(joins_.begin(), joins_.end(), Pair(first, second));
}

bool SentencePieceSplitter::HasUserDefined(std::string_view text) const {
  for (size_t i = 0; i < user_defined_.size(); ++i) {
    const char first = user_defined_[i][0];
    if (i > 0 && user_defined_[i - 1][0] == first) {
      continue;  // the search for the one before was for this one too
    }
    for (size_t at = text.find(first); at != std::string_view::npos;
         at = text.find(first, at + 1)) {
      for (size_t k = i; k < user_defined_.size() && user_defined_[k][0] == first; ++k) {
        if (text.substr(at).starts_with(user_defined_[k])) {
          return true;
        }
      }
    }
  }
  return false;
}

size_t SentencePieceSplitter::Cut(std::string_view text, size_t at) const {
  const auto continues = [&] { return (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80; };
  while (at < text.size() && continues()) {
    ++at;
  }
  const size_t end = at < text.size() ? End(text, at) : at;
  return end == kMalformed ? text.size() : end;  // who encodes the rest meets it, too
}

size_t SentencePieceSplitter::End(std::string_view text, size_t begin) const {
  size_t at = begin;
  while (true) {
    const auto first = static_cast<uint8_t>(text[at]);
    if (first < 0x80 && at + 1 < text.size() && static_cast<uint8_t>(text[at + 1]) < 0x80) {
      if (!ascii_joins_[first][static_cast<uint8_t>(text[at + 1])]) {
        return at + 1;
      }
      ++at;
      continue;
    }
    const Utf8Character character = SentencePieceCharacter(text, at);
    if (character.size == 0) {
      return kMalformed;
    }
    const size_t next = at + character.size;
    if (next == text.size()) {
      return next;
    }
    const Utf8Character follower = SentencePieceCharacter(text, next);
    if (follower.size == 0) {
      return kMalformed;
    }
    if (!Joins(character.code, follower.code)) {
      return next;
    }
    at = next;
  }
}

}  // namespace mft
