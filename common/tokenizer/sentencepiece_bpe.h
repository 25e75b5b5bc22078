// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
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

  // Appends the ids of `text` (valid UTF-8 of at most kMaxBytes without a user-defined piece; no
  // dummy space is added).
  void Encode(std::string_view text, std::vector<int32_t>& out) const;

 private:
  static constexpr int32_t kNone = -1;
  struct Join {
    uint64_t pair = 0;  // left id << 32 | right id
    int32_t id = kNone;
    float score = 0;
  };
  struct Symbol {
    int32_t id = kNone;  // kNone: a character that is no piece
    uint32_t begin = 0;
  };

  const Join& Find(uint64_t pair) const;
  Join JoinOf(const Symbol& left, const Symbol& right) const;
  void Insert(uint64_t pair, int32_t id, float score);
  int32_t CharacterId(uint32_t code) const;

  std::vector<Join> joins_;  // a hash table with linear probing, at most half full
  std::array<int32_t, 128> ascii_ids_{};
  std::vector<std::pair<uint32_t, int32_t>> character_ids_;  // sorted by code
  std::array<int32_t, 256> byte_ids_{};
};

}  // namespace mft
