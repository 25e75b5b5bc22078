// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/sentencepiece_file.h"

#include <cstdint>

namespace mft {

namespace {
// Of sentencepiece_model.proto.
constexpr uint64_t kNormalizerSpec = 3;
constexpr uint64_t kDenormalizerSpec = 5;
constexpr uint64_t kPrecompiledCharsmap = 2;

// Walks the fields of one protobuf message.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  bool done() const { return rest_.empty(); }
  uint64_t number() const { return number_; }
  std::string_view bytes() const { return bytes_; }  // of a length-delimited field, else empty

  // False where the bytes are no field.
  bool Next() {
    uint64_t tag = 0;
    if (!Varint(tag)) {
      return false;
    }
    number_ = tag >> 3;
    bytes_ = {};
    uint64_t size = 0;
    switch (tag & 7) {
      case 0:
        return Varint(size);
      case 1:
        return Skip(8);
      case 2:
        if (!Varint(size) || size > rest_.size()) {
          return false;
        }
        bytes_ = rest_.substr(0, size);
        return Skip(size);
      case 5:
        return Skip(4);
      default:
        return false;  // groups are not used by this format
    }
  }

 private:
  bool Varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) {
        return true;
      }
    }
    return false;
  }

  bool Skip(uint64_t size) {
    if (size > rest_.size()) {
      return false;
    }
    rest_.remove_prefix(size);
    return true;
  }

  std::string_view rest_;
  uint64_t number_ = 0;
  std::string_view bytes_;
};

Status Damaged() {
  return InvalidArgument("no SentencePiece model: damaged or cut off");
}

Status CheckNormalizer(std::string_view spec) {
  for (Fields field(spec); !field.done();) {
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
  for (Fields field(bytes); !field.done();) {
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
