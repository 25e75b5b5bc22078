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
// A multiply for each eight bytes; the table is built from a file that was checked, so nobody gains
// by collisions beyond what a short probe costs.
uint32_t Hash(std::string_view bytes) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;
  uint64_t hash = bytes.size() * kMultiplier;
  const char* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    hash = (std::rotl(hash, 23) ^ word) * kMultiplier;
  }
  uint64_t word = 0;
  std::memcpy(&word, at, left);
  hash = (std::rotl(hash, 23) ^ word) * kMultiplier;
  return static_cast<uint32_t>(hash >> 32);
}
}  // namespace

BytePairs::BytePairs(const std::vector<std::string>& tokens) {
  slots_.resize(std::bit_ceil(tokens.size() * 2 + 1));
  begin_.reserve(tokens.size() + 1);
  begin_.push_back(0);
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    const std::string& token = tokens[rank];
    bytes_ += token;
    begin_.push_back(static_cast<uint32_t>(bytes_.size()));
    longest_ = std::max(longest_, token.size());
    const uint32_t hash = Hash(token);
    size_t at = hash & (slots_.size() - 1);
    while (slots_[at].rank != kNone) {
      at = (at + 1) & (slots_.size() - 1);
    }
    slots_[at] = {hash, static_cast<uint32_t>(rank)};
  }
}

uint32_t BytePairs::Rank(std::string_view bytes) const {
  if (bytes.size() > longest_) {
    return kNone;
  }
  const uint32_t hash = Hash(bytes);
  size_t at = hash & (slots_.size() - 1);
  while (slots_[at].rank != kNone) {
    if (slots_[at].hash == hash && token(slots_[at].rank) == bytes) {
      return slots_[at].rank;
    }
    at = (at + 1) & (slots_.size() - 1);
  }
  return kNone;
}

void BytePairs::Encode(std::string_view piece, int32_t offset, std::vector<int32_t>& out) const {
  if (piece.empty()) {
    return;
  }
  if (const uint32_t rank = Rank(piece); rank != kNone) {
    out.push_back(static_cast<int32_t>(rank) + offset);
  } else if (piece.size() <= kShortPiece) {
    EncodeShort(piece, offset, out);
  } else {
    EncodeLong(piece, offset, out);
  }
}

// Parts in an array; `merged[i]` is the rank of part i together with the next one.
void BytePairs::EncodeShort(std::string_view piece,
                            int32_t offset,
                            std::vector<int32_t>& out) const {
  std::array<uint8_t, kShortPiece + 1> begin;
  std::array<uint32_t, kShortPiece> merged;
  size_t parts = piece.size();
  const auto rank_at = [&](size_t i) {
    return i + 2 <= parts ? Rank(piece.substr(begin[i], begin[i + 2] - begin[i])) : kNone;
  };
  for (size_t i = 0; i <= parts; ++i) {
    begin[i] = static_cast<uint8_t>(i);
  }
  for (size_t i = 0; i < parts; ++i) {
    merged[i] = rank_at(i);
  }
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
    out.push_back(static_cast<int32_t>(Rank(piece.substr(begin[i], begin[i + 1] - begin[i]))) +
                  offset);
  }
}

// Parts in a linked list, candidates in a heap; one whose parts changed meanwhile is passed over.
void BytePairs::EncodeLong(std::string_view piece,
                           int32_t offset,
                           std::vector<int32_t>& out) const {
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
    out.push_back(static_cast<int32_t>(Rank(piece.substr(i, parts[i].end - i))) + offset);
  }
}

}  // namespace mft
