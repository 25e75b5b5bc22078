// SPDX-License-Identifier: Apache-2.0
// Protobuf's wire format, read without protobuf: Debian's SentencePiece brings one of its own,
// which must not meet another.
#pragma once

#include <cstdint>
#include <string_view>

namespace mft {

// Walks the fields of one message.
class ProtoFields {
 public:
  explicit ProtoFields(std::string_view bytes) : rest_(bytes) {}

  bool done() const { return rest_.empty(); }
  uint64_t number() const { return number_; }
  std::string_view bytes() const { return bytes_; }  // of a length-delimited field, else empty
  uint64_t value() const { return value_; }          // of a varint or a fixed 32-bit field, else 0
  enum class Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
  Wire wire() const { return wire_; }

  // False where the bytes are no field.
  bool Next() {
    uint64_t tag = 0;
    if (!Varint(tag)) {
      return false;
    }
    number_ = tag >> 3;
    bytes_ = {};
    value_ = 0;
    wire_ = static_cast<Wire>(tag & 7);
    uint64_t size = 0;
    switch (wire_) {
      case Wire::kVarint:
        return Varint(value_);
      case Wire::kFixed64:
        return Skip(8);
      case Wire::kBytes:
        if (!Varint(size) || size > rest_.size()) {
          return false;
        }
        bytes_ = rest_.substr(0, size);
        return Skip(size);
      case Wire::kFixed32:
        for (size_t i = 0; i < 4 && i < rest_.size(); ++i) {
          value_ |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
        }
        return Skip(4);
    }
    return false;  // groups are not used by this format
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
  uint64_t value_ = 0;
  Wire wire_ = Wire::kVarint;
};

}  // namespace mft
