// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/sentencepiece_bpe.h"

#include <algorithm>
#include <bit>
#include <unordered_map>
#include <utility>

#include "common/base/status.h"

namespace mft {

namespace {
struct Split {
  uint64_t pair;
  const SentencePieceModel::Piece* whole;
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
        splits.push_back({uint64_t{static_cast<uint32_t>(left->second)} << 32 |
                              static_cast<uint32_t>(right->second),
                          &piece});
      }
    }
  }
  return splits;
}

size_t Home(uint64_t pair, size_t slots) {
  return static_cast<size_t>((pair * 0x9E3779B97F4A7C15) >> 32) & (slots - 1);
}
}  // namespace

SentencePieceBpe::SentencePieceBpe(const SentencePieceModel& model) : byte_ids_(model.byte_ids) {
  const std::vector<Split> splits = Splits(model);
  joins_.resize(std::bit_ceil(2 * splits.size() + 1));
  for (const Split& split : splits) {
    Insert(split.pair, split.whole->id, split.whole->score);
  }
  ascii_ids_.fill(kNone);
  for (const auto& piece : model.pieces) {
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
}

void SentencePieceBpe::Insert(uint64_t pair, int32_t id, float score) {
  size_t at = Home(pair, joins_.size());
  while (joins_[at].id != kNone) {
    at = (at + 1) & (joins_.size() - 1);
  }
  joins_[at] = {.pair = pair, .id = id, .score = score};
}

// The pair's slot, or a free one.
const SentencePieceBpe::Join& SentencePieceBpe::Find(uint64_t pair) const {
  size_t at = Home(pair, joins_.size());
  while (joins_[at].id != kNone && joins_[at].pair != pair) {
    at = (at + 1) & (joins_.size() - 1);
  }
  return joins_[at];
}

int32_t SentencePieceBpe::CharacterId(uint32_t code) const {
  const auto found =
      std::lower_bound(character_ids_.begin(), character_ids_.end(), std::pair(code, kNone));
  return found == character_ids_.end() || found->first != code ? kNone : found->second;
}

SentencePieceBpe::Join SentencePieceBpe::JoinOf(const Symbol& left, const Symbol& right) const {
  if (left.id == kNone || right.id == kNone) {
    return {};
  }
  return Find(uint64_t{static_cast<uint32_t>(left.id)} << 32 | static_cast<uint32_t>(right.id));
}

void SentencePieceBpe::Encode(std::string_view text, std::vector<int32_t>& out) const {
  MFT_CHECK(text.size() <= kMaxBytes, "a text too long for this search");
  std::array<Symbol, kMaxBytes + 1> symbols;
  std::array<Join, kMaxBytes> joins;  // of each symbol with the next one
  size_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) {
    const Utf8Character character = SentencePieceCharacter(text, at);
    MFT_CHECK(character.size > 0, "a text that is no UTF-8");
    const bool ascii = character.size == 1;
    symbols[count] = {
        .id = ascii ? ascii_ids_[static_cast<uint8_t>(text[at])] : CharacterId(character.code),
        .begin = static_cast<uint32_t>(at)};
    at += character.size;
  }
  symbols[count].begin = static_cast<uint32_t>(text.size());
  for (size_t i = 0; i + 1 < count; ++i) {
    joins[i] = JoinOf(symbols[i], symbols[i + 1]);
  }
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      const bool better = joins[best].id == kNone || joins[i].score > joins[best].score;
      best = joins[i].id != kNone && better ? i : best;
    }
    if (joins[best].id == kNone) {
      break;
    }
    symbols[best].id = joins[best].id;
    std::copy(symbols.begin() + best + 2, symbols.begin() + count + 1, symbols.begin() + best + 1);
    --count;
    // The last symbol has no follower, and joins[count - 1] is not read.
    std::copy(joins.begin() + best + 1, joins.begin() + count, joins.begin() + best);
    if (best > 0) {
      joins[best - 1] = JoinOf(symbols[best - 1], symbols[best]);
    }
    if (best + 1 < count) {
      joins[best] = JoinOf(symbols[best], symbols[best + 1]);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (symbols[i].id != kNone) {
      out.push_back(symbols[i].id);
      continue;
    }
    for (size_t at = symbols[i].begin; at < symbols[i + 1].begin; ++at) {
      out.push_back(byte_ids_[static_cast<uint8_t>(text[at])]);
    }
  }
}

}  // namespace mft
