// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/sentencepiece_file.h"

#include <cstdint>

#include "common/tokenizer/proto_fields.h"

namespace mft {

namespace {
// Of sentencepiece_model.proto.
constexpr uint64_t kNormalizerSpec = 3;
constexpr uint64_t kDenormalizerSpec = 5;
constexpr uint64_t kPrecompiledCharsmap = 2;

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
}  // namespace

Status CheckSentencePieceFile(std::string_view bytes) {
  for (ProtoFields field(bytes); !field.done();) {
    if (!field.Next()) {
      return Damaged();
    }
    if (field.number() == kNormalizerSpec || field.number() == kDenormalizerSpec) {
      MFT_RETURN_IF_ERROR(CheckNormalizer(field.bytes()));
    }
  }
  return Status::Ok();
}

}  // namespace mft
