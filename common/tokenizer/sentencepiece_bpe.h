// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "common/tokenizer/sentencepiece_model.h"

namespace mft {

// SentencePiece's BPE for short texts: of all neighbours that together are a piece the pair of the
// highest score is joined, the leftmost of equals, until there is none. Characters that are no
// piece become their bytes.
// Threads: const calls are safe from any thread.
class SentencePieceBpe {
 public:
  static constexpr size_t kMaxBytes = 64;

  explicit SentencePieceBpe(const SentencePieceModel& model);

  // Writes the ids of `text` (valid UTF-8 of at most kMaxBytes without a user-defined piece; no
  // dummy space is added), at most one a byte, and returns the end of what is written.
  int32_t* Encode(std::string_view text, int32_t* out) const;

 private:
  struct Symbols;
  static constexpr int32_t kNone = -1;

  // The piece that two make, or kNone.
  int32_t Join(int32_t left, int32_t right) const;
  int32_t CharacterId(uint32_t code) const;  // kNone: no piece
  void Characters(std::string_view text, Symbols& symbols) const;
  void SetJoin(Symbols& symbols, size_t left) const;

  // A hash table with linear probing, at most half full: pair | id + 1; 0 is free.
  std::vector<uint64_t> joins_;
  std::vector<float> scores_;                                // by id
  std::array<int32_t, 128> ascii_ids_{};                     // of characters
  std::array<std::array<int32_t, 128>, 128> ascii_joins_{};  // of two of them
  std::vector<std::pair<uint32_t, int32_t>> character_ids_;  // sorted by code
  std::array<int32_t, 256> byte_ids_{};
};

}  // namespace mft
