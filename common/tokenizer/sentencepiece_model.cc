// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <unordered_set>
#include <utility>

#include "common/tokenizer/proto_fields.h"

namespace mft {

namespace {
using Wire = ProtoFields::Wire;

// Of sentencepiece_model.proto: the fields of ModelProto, and below them.
constexpr uint64_t kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3;
constexpr uint64_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr uint64_t kModelType = 3, kWhitespaceAsSuffix = 24, kByteFallback = 35;
constexpr uint64_t kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4, kEscapeWhitespaces = 5;

constexpr uint64_t kBpe = 2;
enum PieceType : uint64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

constexpr uint32_t kSpace = 0x2581;

// One character; 0: not just one.
uint32_t OnlyCharacter(std::string_view text) {
  const Utf8Character character = SentencePieceCharacter(text, 0);
  return character.size == text.size() ? character.code : 0;
}

// "<0xAB>"; nothing else.
std::optional<uint8_t> ByteOf(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') {
    return std::nullopt;
  }
  const size_t high = kDigits.find(text[3]);
  const size_t low = kDigits.find(text[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) {
    return std::nullopt;
  }
  return static_cast<uint8_t>(high * 16 + low);
}

// Every reader returns false for what the model must not have. A known field with another wire type
// is that too: the library would skip it.
class Reader {
 public:
  bool Read(std::string_view bytes) {
    for (ProtoFields field(bytes); !field.done();) {
      if (!field.Next()) {
        return false;
      }
      const bool ok = field.number() == kPieces           ? ReadPiece(field.bytes())
                      : field.number() == kTrainerSpec    ? ReadTrainer(field.bytes())
                      : field.number() == kNormalizerSpec ? ReadNormalizer(field.bytes())
                                                          : true;
      if (!ok) {
        return false;
      }
    }
    return model_type_ == kBpe && byte_fallback_ && !whitespace_as_suffix_ && dummy_prefix_ &&
           !remove_extra_whitespaces_ && escape_whitespaces_ && bytes_ == model_.byte_ids.size() &&
           CharactersArePieces();
  }
  SentencePieceModel Take() {
    std::sort(model_.user_defined.begin(), model_.user_defined.end());
    return std::move(model_);
  }

 private:
  bool ReadTrainer(std::string_view spec) {
    for (ProtoFields field(spec); !field.done();) {
      if (!field.Next()) {
        return false;
      }
      const uint64_t number = field.number();
      if (number != kModelType && number != kByteFallback && number != kWhitespaceAsSuffix) {
        continue;
      }
      if (field.wire() != Wire::kVarint) {
        return false;
      }
      if (number == kModelType) {
        model_type_ = field.value();
      } else {
        (number == kByteFallback ? byte_fallback_ : whitespace_as_suffix_) = field.value() != 0;
      }
    }
    return true;
  }

  bool ReadNormalizer(std::string_view spec) {
    for (ProtoFields field(spec); !field.done();) {
      if (!field.Next()) {
        return false;
      }
      const uint64_t number = field.number();
      if (number < kAddDummyPrefix || number > kEscapeWhitespaces) {
        continue;
      }
      if (field.wire() != Wire::kVarint) {
        return false;
      }
      (number == kAddDummyPrefix           ? dummy_prefix_
       : number == kRemoveExtraWhitespaces ? remove_extra_whitespaces_
                                           : escape_whitespaces_) = field.value() != 0;
    }
    return true;
  }

  bool ReadPiece(std::string_view message) {
    SentencePieceModel::Piece piece = {.text = {}, .id = next_id_++, .score = 0};
    uint64_t type = kNormal;
    for (ProtoFields field(message); !field.done();) {
      if (!field.Next()) {
        return false;
      }
      if (field.number() == kPieceText && field.wire() == Wire::kBytes) {
        piece.text = field.bytes();
      } else if (field.number() == kPieceScore && field.wire() == Wire::kFixed32) {
        piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value()));
      } else if (field.number() == kPieceType && field.wire() == Wire::kVarint) {
        type = field.value();
      } else if (field.number() <= kPieceType) {
        return false;
      }
    }
    const bool too_many = static_cast<size_t>(next_id_) > SentencePieceModel::kMaxPieces;
    return !too_many && !piece.text.empty() && std::isfinite(piece.score) &&
           AddPiece(std::move(piece), type);
  }

  bool AddPiece(SentencePieceModel::Piece piece, uint64_t type) {
    switch (type) {
      case kUserDefined:
        model_.user_defined.push_back(piece.text);
        if (piece.text.find("\xE2\x96\x81") != std::string::npos) {
          return false;  // the text has spaces there
        }
        [[fallthrough]];
      case kNormal:
        model_.pieces.push_back(std::move(piece));
        return true;
      case kByte: {
        const std::optional<uint8_t> byte = ByteOf(piece.text);
        bytes_ += byte ? 1 : 0;
        model_.byte_ids[byte.value_or(0)] = piece.id;
        return byte.has_value();
      }
      case kUnknown:
      case kControl:
        return OnlyCharacter(piece.text) == 0;  // else the library finds it in texts
      default:
        return false;
    }
  }

  bool CharactersArePieces() const {
    std::unordered_set<uint32_t> characters;
    for (const auto& piece : model_.pieces) {
      characters.insert(OnlyCharacter(piece.text));
    }
    for (const auto& piece : model_.pieces) {
      for (size_t at = 0; at < piece.text.size();) {
        const Utf8Character character = SentencePieceCharacter(piece.text, at);
        if (character.size == 0 || !characters.contains(character.code)) {
          return false;
        }
        at += character.size;
      }
    }
    return true;
  }

  SentencePieceModel model_;
  int32_t next_id_ = 0;
  size_t bytes_ = 0;
  // With the format's own defaults.
  uint64_t model_type_ = 1;
  bool byte_fallback_ = false;
  bool whitespace_as_suffix_ = false;
  bool dummy_prefix_ = true;
  bool remove_extra_whitespaces_ = true;
  bool escape_whitespaces_ = true;
};
}  // namespace

std::optional<SentencePieceModel> ReadSentencePieceModel(std::string_view bytes) {
  Reader reader;
  return reader.Read(bytes) ? std::optional(reader.Take()) : std::nullopt;
}

Utf8Character SentencePieceCharacter(std::string_view text, size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  if (lead < 0x80) {
    return {lead == ' ' ? kSpace : lead, 1};
  }
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || at + size > text.size()) {
    return {};
  }
  uint32_t code = lead & (0x7Fu >> size);
  for (size_t i = 1; i < size; ++i) {
    const auto byte = static_cast<uint8_t>(text[at + i]);
    if ((byte & 0xC0) != 0x80) {
      return {};
    }
    code = code << 6 | (byte & 0x3F);
  }
  constexpr std::array<uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  const bool valid = code >= kLeast[size] && code <= 0x10FFFF && !surrogate;
  return valid ? Utf8Character{code, size} : Utf8Character{};
}

}  // namespace mft
