// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/byte_pairs.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <queue>

namespace mft {

namespace {
// Up to eight bytes at `at`, of which `left` count. Eight are read.
uint64_t Word(const char* at, size_t left) {
  uint64_t word;
  std::memcpy(&word, at, sizeof(word));
  return left >= 8 ? word : word & ((uint64_t{1} << (8 * left)) - 1);
}

// A multiply for each eight bytes; the table is built from a file that was checked, so nobody gains
// by collisions beyond what a short probe costs.
uint32_t Hash(std::string_view bytes) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;
  uint64_t hash = bytes.size() * kMultiplier;
  for (size_t at = 0; at < bytes.size(); at += 8) {
    hash = (std::rotl(hash, 23) ^ Word(bytes.data() + at, bytes.size() - at)) * kMultiplier;
  }
  return static_cast<uint32_t>(hash >> 32);
}

constexpr int kRankBits = 21;
constexpr uint64_t kRankMask = (uint64_t{1} << kRankBits) - 1;

uint64_t Pair(uint32_t left, uint32_t right) {
  return (uint64_t{left} << kRankBits | right) << kRankBits;
}

size_t Home(uint64_t pair) {
  return static_cast<size_t>((pair * 0x9E3779B97F4A7C15) >> 32);
}

bool Same(const char* a, const char* b, size_t size) {
  uint64_t difference = 0;
  for (size_t at = 0; at < size; at += 8) {
    difference |= Word(a + at, size - at) ^ Word(b + at, size - at);
  }
  return difference == 0;
}
}  // namespace

BytePairs::BytePairs(const std::vector<std::string>& tokens) : two_(size_t{256} * 256, kNone) {
  slots_.resize(std::bit_ceil(tokens.size() * 2 + 1));
  begin_.reserve(tokens.size() + 1);
  begin_.push_back(0);
  for (const std::string& token : tokens) {
    bytes_ += token;
    begin_.push_back(static_cast<uint32_t>(bytes_.size()));
    longest_ = std::max(longest_, token.size());
  }
  bytes_.append(kSlack, '\0');
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    const uint32_t hash = Hash(token(rank));
    size_t at = hash & (slots_.size() - 1);
    while (slots_[at].rank != kNone) {
      at = (at + 1) & (slots_.size() - 1);
    }
    slots_[at] = {hash, static_cast<uint32_t>(rank)};
  }
  AddMerges();
}

// Where a part of a text becomes a token, the merges inside it were those of the token's bytes
// alone, in their order, whatever happened around it. So one pair makes the token: the two parts
// that its own bytes have before the last merge.
void BytePairs::AddMerges() {
  merges_.resize(std::bit_ceil(2 * size() + 1));
  may_merge_.resize(std::bit_ceil(size() / 16 + 1));
  Parts parts;
  std::vector<int32_t> ids(longest_);
  for (size_t rank = 256; rank < size(); ++rank) {
    const std::string_view whole = token(rank);
    // The merges of lower rank are there already, and come before any other.
    if (whole.size() <= kShortPiece && MergeShort(whole, parts) == 2) {
      AddMerge(parts[0], parts[1], rank);
    } else if (MergeLong(whole, static_cast<uint32_t>(rank), 0, ids.data()) == ids.data() + 2) {
      AddMerge(static_cast<uint32_t>(ids[0]), static_cast<uint32_t>(ids[1]), rank);
    }
  }
}

void BytePairs::AddMerge(uint32_t left, uint32_t right, size_t rank) {
  const uint64_t pair = Pair(left, right);
  size_t at = Home(pair);
  may_merge_[at / 64 & (may_merge_.size() - 1)] |= uint64_t{1} << (at % 64);
  at &= merges_.size() - 1;
  while (merges_[at] != 0) {
    at = (at + 1) & (merges_.size() - 1);
  }
  merges_[at] = pair | (rank + 1);
  if (left < 256 && right < 256) {
    two_[left * 256 + right] = static_cast<uint32_t>(rank);
  }
}

uint32_t BytePairs::Merged(uint32_t left, uint32_t right) const {
  const uint64_t pair = Pair(left, right);
  size_t at = Home(pair);
  if ((may_merge_[at / 64 & (may_merge_.size() - 1)] >> (at % 64) & 1) == 0) {
    return kNone;
  }
  at &= merges_.size() - 1;
  while (merges_[at] != 0 && (merges_[at] & ~kRankMask) != pair) {
    at = (at + 1) & (merges_.size() - 1);
  }
  return static_cast<uint32_t>(merges_[at] & kRankMask) - 1;  // kNone where there is none
}

uint32_t BytePairs::Rank(std::string_view bytes) const {
  if (bytes.size() > longest_) {
    return kNone;
  }
  const uint32_t hash = Hash(bytes);
  size_t at = hash & (slots_.size() - 1);
  while (slots_[at].rank != kNone) {
    if (slots_[at].hash == hash) {
      const std::string_view found = token(slots_[at].rank);
      if (found.size() == bytes.size() && Same(found.data(), bytes.data(), bytes.size())) {
        return slots_[at].rank;
      }
    }
    at = (at + 1) & (slots_.size() - 1);
  }
  return kNone;
}

int32_t* BytePairs::Encode(std::string_view piece, int32_t offset, int32_t* out) const {
  if (piece.empty()) {
    return out;
  }
  if (piece.size() > kShortPiece) {
    const std::string padded = std::string(piece).append(kSlack, '\0');
    return EncodeLong(std::string_view(padded).substr(0, piece.size()), offset, out);
  }
  std::array<char, kShortPiece + kSlack> padded;
  std::memcpy(padded.data(), piece.data(), piece.size());
  std::memset(padded.data() + piece.size(), 0, kSlack);
  return EncodeShort({padded.data(), piece.size()}, offset, out);
}

int32_t* BytePairs::EncodeShort(std::string_view piece, int32_t offset, int32_t* out) const {
  if (const uint32_t rank = Rank(piece); rank != kNone) {
    *out = static_cast<int32_t>(rank) + offset;
    return out + 1;
  }
  Parts parts;
  const size_t count = MergeShort(piece, parts);
  for (size_t i = 0; i < count; ++i) {
    *out++ = static_cast<int32_t>(parts[i]) + offset;
  }
  return out;
}

// Parts in an array; `merged[i]` is the rank of part i together with the next one.
size_t BytePairs::MergeShort(std::string_view piece, Parts& ranks) const {
  std::array<uint32_t, kShortPiece> merged;
  size_t parts = piece.size();
  for (size_t i = 0; i < parts; ++i) {
    ranks[i] = static_cast<uint8_t>(piece[i]);
    merged[i] = i + 1 < parts ? two_[ranks[i] * 256 + static_cast<uint8_t>(piece[i + 1])] : kNone;
  }
  while (true) {
    size_t best = 0;
    for (size_t i = 1; i < parts; ++i) {
      best = merged[i] < merged[best] ? i : best;
    }
    if (merged[best] == kNone) {
      break;
    }
    ranks[best] = merged[best];
    std::copy(ranks.data() + best + 2, ranks.data() + parts, ranks.data() + best + 1);
    std::copy(merged.data() + best + 2, merged.data() + parts, merged.data() + best + 1);
    --parts;
    merged[best] = best + 1 < parts ? Merged(ranks[best], ranks[best + 1]) : kNone;
    if (best > 0) {
      merged[best - 1] = Merged(ranks[best - 1], ranks[best]);
    }
  }
  return parts;
}

int32_t* BytePairs::EncodeLong(std::string_view piece, int32_t offset, int32_t* out) const {
  if (const uint32_t rank = Rank(piece); rank != kNone) {
    *out = static_cast<int32_t>(rank) + offset;
    return out + 1;
  }
  return MergeLong(piece, kNone, offset, out);
}

// Parts in a linked list, candidates in a heap; one whose parts changed meanwhile is passed over.
int32_t* BytePairs::MergeLong(std::string_view piece,
                              uint32_t without,
                              int32_t offset,
                              int32_t* out) const {
  struct Part {
    size_t end;       // where the next part begins
    size_t previous;  // where the part before begins
    uint32_t merged;  // rank of this part together with the next one
  };
  struct Candidate {
    uint32_t rank;
    size_t begin;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : begin > other.begin;
    }
  };
  constexpr size_t kFirst = SIZE_MAX;
  const size_t size = piece.size();
  std::vector<Part> parts(size);  // by where a part begins
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
  const auto consider = [&](size_t begin) {
    Part& part = parts[begin];
    part.merged = part.end < size ? Rank(piece.substr(begin, parts[part.end].end - begin)) : kNone;
    if (part.merged == without) {
      part.merged = kNone;
    }
    if (part.merged != kNone) {
      heap.push({part.merged, begin});
    }
  };
  for (size_t i = 0; i < size; ++i) {
    parts[i] = {.end = i + 1, .previous = i == 0 ? kFirst : i - 1, .merged = kNone};
  }
  for (size_t i = 0; i < size; ++i) {
    consider(i);
  }
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    Part& part = parts[best.begin];
    if (part.merged != best.rank) {
      continue;  // merged into another part, or grown since
    }
    Part& gone = parts[part.end];
    gone.merged = kNone;
    part.end = gone.end;
    if (part.end < size) {
      parts[part.end].previous = best.begin;
    }
    consider(best.begin);
    if (part.previous != kFirst) {
      consider(part.previous);
    }
  }
  for (size_t i = 0; i < size; i = parts[i].end) {
    *out++ = static_cast<int32_t>(Rank(piece.substr(i, parts[i].end - i))) + offset;
  }
  return out;
}

}  // namespace mft
