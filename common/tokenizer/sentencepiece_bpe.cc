// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/sentencepiece_bpe.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>
#include <unordered_map>

#include "common/base/status.h"

namespace mft {

namespace {
constexpr int kIdBits = 21;
static_assert(SentencePieceModel::kMaxPieces < size_t{1} << kIdBits);
constexpr uint64_t kIdMask = (uint64_t{1} << kIdBits) - 1;
constexpr float kNoScore = -std::numeric_limits<float>::infinity();

uint64_t Pair(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(left) << kIdBits | static_cast<uint64_t>(right)) << kIdBits;
}

struct Split {
  uint64_t pair;
  int32_t id;
};

// Every way to cut a piece into two others.
std::vector<Split> Splits(const SentencePieceModel& model) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (const auto& piece : model.pieces) {
    ids.emplace(piece.text, piece.id);
  }
  std::vector<Split> splits;
  for (const auto& piece : model.pieces) {
    const std::string_view text = piece.text;
    for (size_t at = 1; at < text.size(); ++at) {
      const auto left = ids.find(text.substr(0, at));
      const auto right = ids.find(text.substr(at));
      if (left != ids.end() && right != ids.end()) {
        splits.push_back({Pair(left->second, right->second), piece.id});
      }
    }
  }
  return splits;
}

size_t Home(uint64_t pair) {
  return static_cast<size_t>((pair * 0x9E3779B97F4A7C15) >> 32);
}

int32_t At(const std::vector<uint64_t>& table, uint64_t pair, size_t& at) {
  const size_t mask = table.size() - 1;
  for (at = Home(pair) & mask; table[at] != 0; at = (at + 1) & mask) {
    if ((table[at] & ~kIdMask) == pair) {
      break;
    }
  }
  return static_cast<int32_t>(table[at] & kIdMask) - 1;
}
}  // namespace

// What a text is made of so far; [i] of the joins is that of the symbols i and i + 1.
struct SentencePieceBpe::Symbols {
  std::array<int32_t, kMaxBytes> id;  // kNone: a character that is no piece
  std::array<uint32_t, kMaxBytes + 1> begin;
  std::array<int32_t, kMaxBytes> join;
  std::array<float, kMaxBytes> score;  // of the join; kNoScore: there is none
  size_t count = 0;

  // Replaces the symbols i and i + 1 by their join.
  void Take(size_t i) {
    id[i] = join[i];
    std::copy(id.begin() + i + 2, id.begin() + count, id.begin() + i + 1);
    std::copy(begin.begin() + i + 2, begin.begin() + count + 1, begin.begin() + i + 1);
    --count;
    std::copy(join.begin() + i + 1, join.begin() + count, join.begin() + i);
    std::copy(score.begin() + i + 1, score.begin() + count, score.begin() + i);
  }
};

SentencePieceBpe::SentencePieceBpe(const SentencePieceModel& model) : byte_ids_(model.byte_ids) {
  const std::vector<Split> splits = Splits(model);
  joins_.resize(std::bit_ceil(2 * splits.size() + 1));
  for (const Split& split : splits) {
    size_t free = 0;
    At(joins_, split.pair, free);
    joins_[free] = split.pair | static_cast<uint64_t>(split.id + 1);
  }
  for (const auto& piece : model.pieces) {
    scores_.resize(std::max(scores_.size(), static_cast<size_t>(piece.id) + 1));
    scores_[static_cast<size_t>(piece.id)] = piece.score;
    const Utf8Character character = SentencePieceCharacter(piece.text, 0);
    if (character.size == piece.text.size()) {
      character_ids_.emplace_back(character.code, piece.id);
    }
  }
  std::sort(character_ids_.begin(), character_ids_.end());
  for (size_t i = 0; i < ascii_ids_.size(); ++i) {
    const std::string text(1, static_cast<char>(i));
    ascii_ids_[i] = CharacterId(SentencePieceCharacter(text, 0).code);
  }
  for (size_t i = 0; i < ascii_ids_.size(); ++i) {
    for (size_t k = 0; k < ascii_ids_.size(); ++k) {
      ascii_joins_[i][k] = Join(ascii_ids_[i], ascii_ids_[k]);
    }
  }
}

int32_t SentencePieceBpe::Join(int32_t left, int32_t right) const {
  size_t at = 0;
  return left == kNone || right == kNone ? kNone : At(joins_, Pair(left, right), at);
}

int32_t SentencePieceBpe::CharacterId(uint32_t code) const {
  const auto found =
      std::lower_bound(character_ids_.begin(), character_ids_.end(), std::pair(code, kNone));
  return found == character_ids_.end() || found->first != code ? kNone : found->second;
}

void SentencePieceBpe::SetJoin(Symbols& symbols, size_t left) const {
  const int32_t id = Join(symbols.id[left], symbols.id[left + 1]);
  symbols.join[left] = id;
  symbols.score[left] = id == kNone ? kNoScore : scores_[static_cast<size_t>(id)];
}

void SentencePieceBpe::Characters(std::string_view text, Symbols& symbols) const {
  for (size_t at = 0; at < text.size(); ++symbols.count) {
    const Utf8Character character = SentencePieceCharacter(text, at);
    MFT_CHECK(character.size > 0, "a text that is no UTF-8");
    symbols.id[symbols.count] = character.size == 1 ? ascii_ids_[static_cast<uint8_t>(text[at])]
                                                    : CharacterId(character.code);
    symbols.begin[symbols.count] = static_cast<uint32_t>(at);
    at += character.size;
  }
  symbols.begin[symbols.count] = static_cast<uint32_t>(text.size());
  for (size_t i = 0; i + 1 < symbols.count; ++i) {
    const auto first = static_cast<uint8_t>(text[symbols.begin[i]]);
    const auto second = static_cast<uint8_t>(text[symbols.begin[i + 1]]);
    if (first >= 128 || second >= 128) {
      SetJoin(symbols, i);
      continue;
    }
    const int32_t id = ascii_joins_[first][second];
    symbols.join[i] = id;
    symbols.score[i] = id == kNone ? kNoScore : scores_[static_cast<size_t>(id)];
  }
}

int32_t* SentencePieceBpe::Encode(std::string_view text, int32_t* out) const {
  MFT_CHECK(text.size() <= kMaxBytes, "a text too long for this search");
  Symbols symbols;
  Characters(text, symbols);
  while (symbols.count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < symbols.count; ++i) {
      best = symbols.score[i] > symbols.score[best] ? i : best;
    }
    if (symbols.score[best] == kNoScore) {
      break;
    }
    symbols.Take(best);
    if (best > 0) {
      SetJoin(symbols, best - 1);
    }
    if (best + 1 < symbols.count) {
      SetJoin(symbols, best);
    }
  }
  for (size_t i = 0; i < symbols.count; ++i) {
    if (symbols.id[i] != kNone) {
      *out++ = symbols.id[i];
      continue;
    }
    for (size_t at = symbols.begin[i]; at < symbols.begin[i + 1]; ++at) {
      *out++ = byte_ids_[static_cast<uint8_t>(text[at])];
    }
  }
  return out;
}

}  // namespace mft
