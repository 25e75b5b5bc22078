// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/sentencepiece_file.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "common/base/strings.h"
#include "common/tokenizer/proto_fields.h"

namespace mft {

namespace {
using Wire = ProtoFields::Wire;

// Of sentencepiece_model.proto: the fields of ModelProto, and below them.
constexpr uint64_t kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3, kDenormalizerSpec = 5;
constexpr uint64_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr uint64_t kModelType = 3;
constexpr uint64_t kPrecompiledCharsmap = 2;

constexpr uint64_t kBpe = 2;
constexpr uint64_t kLastPieceType = 6;

Status Damaged() {
  return InvalidArgument("no SentencePiece model: damaged or cut off");
}

Status CheckNormalizer(std::string_view spec) {
  for (ProtoFields field(spec); !field.done();) {
    if (!field.Next()) {
      return Damaged();
    }
    if (field.number() == kPrecompiledCharsmap && !field.bytes().empty()) {
      return InvalidArgument(
          "a SentencePiece model with a normalisation map, which no Mistral model has, is refused");
    }
  }
  return Status::Ok();
}

Status CheckTrainer(std::string_view spec, bool& is_bpe) {
  for (ProtoFields field(spec); !field.done();) {
    if (!field.Next()) {
      return Damaged();
    }
    if (field.number() == kModelType) {
      if (field.wire() != Wire::kVarint || field.value() != kBpe) {
        return InvalidArgument(
            StrCat("a SentencePiece model of type ", field.value(), "; Mistral's are BPE, type 2"));
      }
      is_bpe = true;
    }
  }
  return Status::Ok();
}

bool IsText(const ProtoFields& field) {
  return field.wire() == Wire::kBytes && !field.bytes().empty() && IsValidUtf8(field.bytes()) &&
         field.bytes().find('\0') == std::string_view::npos;
}

bool IsScore(const ProtoFields& field) {
  return field.wire() == Wire::kFixed32 &&
         std::isfinite(std::bit_cast<float>(static_cast<uint32_t>(field.value())));
}

bool IsType(const ProtoFields& field) {
  return field.wire() == Wire::kVarint && field.value() >= 1 && field.value() <= kLastPieceType;
}

Status CheckPiece(std::string_view piece, int64_t id) {
  bool has_text = false;
  for (ProtoFields field(piece); !field.done();) {
    if (!field.Next()) {
      return Damaged();
    }
    const uint64_t number = field.number();
    if ((number == kPieceText && !IsText(field)) || (number == kPieceScore && !IsScore(field)) ||
        (number == kPieceType && !IsType(field))) {
      return InvalidArgument(StrCat("no SentencePiece model: piece ",
                                    id,
                                    " has a bad ",
                                    number == kPieceText    ? "text"
                                    : number == kPieceScore ? "score"
                                                            : "type"));
    }
    has_text |= number == kPieceText;
  }
  return has_text ? Status::Ok()
                  : InvalidArgument(StrCat("no SentencePiece model: piece ", id, " has no text"));
}
}  // namespace

Status CheckSentencePieceFile(std::string_view bytes) {
  bool is_bpe = false;
  int64_t pieces = 0;
  for (ProtoFields field(bytes); !field.done();) {
    if (!field.Next()) {
      return Damaged();
    }
    const uint64_t number = field.number();
    if (number >= kPieces && number <= kDenormalizerSpec && field.wire() != Wire::kBytes) {
      return Damaged();
    }
    if (number == kPieces) {
      MFT_RETURN_IF_ERROR(CheckPiece(field.bytes(), pieces++));
    } else if (number == kTrainerSpec) {
      MFT_RETURN_IF_ERROR(CheckTrainer(field.bytes(), is_bpe));
    } else if (number == kNormalizerSpec || number == kDenormalizerSpec) {
      MFT_RETURN_IF_ERROR(CheckNormalizer(field.bytes()));
    }
  }
  return is_bpe ? Status::Ok()
                : InvalidArgument("no SentencePiece model: it does not say that it is BPE");
}

}  // namespace mft
