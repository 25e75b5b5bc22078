// SPDX-License-Identifier: Apache-2.0
// What a SentencePiece model file says about BPE, read without the library, which does not tell.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mft {

struct SentencePieceModel {
  struct Piece {
    std::string text;
    int32_t id = 0;
    float score = 0;
  };
  static constexpr size_t kMaxPieces = size_t{1} << 20;

  // What BPE joins characters to, user-defined pieces too. Each is valid UTF-8, and each of its
  // characters is a piece of its own.
  std::vector<Piece> pieces;
  std::vector<std::string> user_defined;  // sorted; taken from the text before anything is joined
  std::array<int32_t, 256> byte_ids{};    // of the bytes of a character that is no piece
};

// Of a file that CheckSentencePieceFile accepts. Nothing for a model that is not like all of
// Mistral's: BPE with byte fallback, a dummy space in front, all spaces kept and written U+2581, no
// unused pieces, at most kMaxPieces. Such a model is for the library alone.
std::optional<SentencePieceModel> ReadSentencePieceModel(std::string_view bytes);

struct Utf8Character {
  uint32_t code = 0;
  size_t size = 0;  // in bytes; 0: no UTF-8
};

// The character at text[at], at < text.size(). A space is U+2581, as in the vocabulary.
Utf8Character SentencePieceCharacter(std::string_view text, size_t at);

}  // namespace mft
