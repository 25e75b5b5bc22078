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
  for (size_t pair = 0; pair < two_.size(); ++pair) {
    std::array<char, 2 + kSlack> bytes = {static_cast<char>(pair & 0xFF),
                                          static_cast<char>(pair >> 8)};
    two_[pair] = Rank({bytes.data(), 2});
  }
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

uint32_t BytePairs::RankOfTwo(const char* bytes) const {
  return two_[static_cast<uint8_t>(bytes[0]) | size_t{static_cast<uint8_t>(bytes[1])} << 8];
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

// Parts in an array; `merged[i]` is the rank of part i together with the next one.
int32_t* BytePairs::EncodeShort(std::string_view piece, int32_t offset, int32_t* out) const {
  if (const uint32_t rank = Rank(piece); rank != kNone) {
    *out = static_cast<int32_t>(rank) + offset;
    return out + 1;
  }
  std::array<uint8_t, kShortPiece + 1> begin;
  std::array<uint32_t, kShortPiece> merged;
  size_t parts = piece.size();
  const auto rank_at = [&](size_t i) {
    return i + 2 <= parts ? Rank(piece.substr(begin[i], begin[i + 2] - begin[i])) : kNone;
  };
  for (size_t i = 0; i <= parts; ++i) {
    begin[i] = static_cast<uint8_t>(i);
  }
  for (size_t i = 0; i + 1 < parts; ++i) {
    merged[i] = RankOfTwo(piece.data() + i);
  }
  merged[parts - 1] = kNone;
  while (parts > 1) {
    const size_t best = static_cast<size_t>(
        std::min_element(merged.begin(), merged.begin() + static_cast<std::ptrdiff_t>(parts)) -
        merged.begin());
    if (merged[best] == kNone) {
      break;
    }
    std::copy(begin.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              begin.begin() + static_cast<std::ptrdiff_t>(parts) + 1,
              begin.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    std::copy(merged.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              merged.begin() + static_cast<std::ptrdiff_t>(parts),
              merged.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    --parts;
    merged[best] = rank_at(best);
    if (best > 0) {
      merged[best - 1] = rank_at(best - 1);
    }
  }
  for (size_t i = 0; i < parts; ++i) {
    *out++ = static_cast<int32_t>(Rank(piece.substr(begin[i], begin[i + 1] - begin[i]))) + offset;
  }
  return out;
}

// Parts in a linked list, candidates in a heap; one whose parts changed meanwhile is passed over.
int32_t* BytePairs::EncodeLong(std::string_view piece, int32_t offset, int32_t* out) const {
  if (const uint32_t rank = Rank(piece); rank != kNone) {
    *out = static_cast<int32_t>(rank) + offset;
    return out + 1;
  }
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
