// SPDX-License-Identifier: Apache-2.0
// Byte-pair merges as tiktoken makes them (formats.md 1.5): of all adjacent parts whose
// concatenation is a token, the one of lowest rank is merged first, the leftmost of equals.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mft {

// Threads: const calls are safe from any thread.
class BytePairs {
 public:
  static constexpr size_t kMaxTokens = size_t{1} << 20;

  // `tokens`: distinct byte strings by rank, at most kMaxTokens; the first 256 are the single
  // bytes.
  explicit BytePairs(const std::vector<std::string>& tokens);

  // Writes the ranks of `piece`, each plus `offset`, at most one a byte, and returns the end of
  // what is written. No allocation for pieces of up to kShortPiece bytes; n log n for longer ones.
  int32_t* Encode(std::string_view piece, int32_t offset, int32_t* out) const;

  std::string_view token(size_t rank) const {
    return std::string_view(bytes_).substr(begin_[rank], begin_[rank + 1] - begin_[rank]);
  }
  size_t size() const { return begin_.size() - 1; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr size_t kShortPiece = 128;
  struct Slot {
    uint32_t hash = 0;
    uint32_t rank = kNone;
  };
  // Bytes that must be readable after a text whose rank is wanted.
  static constexpr size_t kSlack = 8;
  // The token of exactly these bytes, or kNone. REQUIRES: kSlack.
  uint32_t Rank(std::string_view bytes) const;
  // The token that two parts of a text make, or kNone.
  uint32_t Merged(uint32_t left, uint32_t right) const;
  void AddMerges();
  void AddMerge(uint32_t left, uint32_t right, size_t rank);
  using Parts = std::array<uint32_t, kShortPiece>;
  size_t MergeShort(std::string_view piece, Parts& ranks) const;  // returns their number
  // Never makes the token `without`.
  int32_t* MergeLong(std::string_view piece, uint32_t without, int32_t offset, int32_t* out) const;
  int32_t* EncodeShort(std::string_view piece, int32_t offset, int32_t* out) const;
  int32_t* EncodeLong(std::string_view piece, int32_t offset, int32_t* out) const;

  std::string bytes_;            // of all tokens, one after the other, and kSlack more
  std::vector<uint32_t> begin_;  // [tokens + 1]
  std::vector<Slot> slots_;      // open addressing; the size is a power of two
  // The pair that makes each token, by linear probing, at most half full: left | right | merged
  // rank + 1.
  std::vector<uint64_t> merges_;
  // A bit set for each pair in merges_, found by its hash: it is small enough for a near cache and
  // answers for most pairs, which make no token.
  std::vector<uint64_t> may_merge_;
  std::vector<uint32_t> two_;  // [256 * 256]: of two bytes
  size_t longest_ = 0;
};

}  // namespace mft
