// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/utf8_replace.h"

#include <cstdint>

namespace mft {

namespace {
struct Sequence {
  size_t length = 0;   // of a well-formed one that begins so; 0: none does
  uint8_t low = 0x80;  // bounds of the second byte
  uint8_t high = 0xBF;
};

// Table 3-7 of the standard.
Sequence SequenceOf(uint8_t first) {
  if (first < 0x80) {
    return {1};
  }
  if (first < 0xC2 || first > 0xF4) {
    return {};
  }
  if (first < 0xE0) {
    return {2};
  }
  if (first < 0xF0) {
    return {3,
            static_cast<uint8_t>(first == 0xE0 ? 0xA0 : 0x80),
            static_cast<uint8_t>(first == 0xED ? 0x9F : 0xBF)};
  }
  return {4,
          static_cast<uint8_t>(first == 0xF0 ? 0x90 : 0x80),
          static_cast<uint8_t>(first == 0xF4 ? 0x8F : 0xBF)};
}
}  // namespace

void AppendReplacingBadUtf8(std::string_view bytes, std::string& out) {
  for (size_t at = 0; at < bytes.size();) {
    const Sequence sequence = SequenceOf(static_cast<uint8_t>(bytes[at]));
    size_t good = sequence.length == 0 ? 0 : 1;
    while (good > 0 && good < sequence.length && at + good < bytes.size()) {
      const auto next = static_cast<uint8_t>(bytes[at + good]);
      const uint8_t low = good == 1 ? sequence.low : 0x80;
      const uint8_t high = good == 1 ? sequence.high : 0xBF;
      if (next < low || next > high) {
        break;
      }
      ++good;
    }
    if (good > 0 && good == sequence.length) {
      out += bytes.substr(at, good);
      at += good;
    } else {
      out += "\xEF\xBF\xBD";
      at += good > 0 ? good : 1;
    }
  }
}

}  // namespace mft
