// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace mft {

// Where the first character of a JSON string that does not stand for itself is, from `at` on: a
// quote, a backslash, a control character, or the end of `text`. Eight bytes at a time.
inline size_t EndOfPlainJson(std::string_view text, size_t at) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  constexpr uint64_t kHighs = 0x8080808080808080;
  // Not 0 if and only if a byte is below n (at most 128).
  const auto below = [](uint64_t x, uint64_t n) { return (x - kOnes * n) & ~x & kHighs; };
  for (uint64_t eight = 0; at + sizeof(eight) <= text.size(); at += sizeof(eight)) {
    std::memcpy(&eight, text.data() + at, sizeof(eight));
    if ((below(eight, 0x20) | below(eight ^ kOnes * '"', 1) | below(eight ^ kOnes * '\\', 1)) !=
        0) {
      break;
    }
  }
  while (at < text.size() && text[at] != '"' && text[at] != '\\' &&
         static_cast<unsigned char>(text[at]) >= 0x20) {
    ++at;
  }
  return at;
}

// repr(float): shortest digits that read back equal; scientific below 1e-4 and from 1e16 on.
std::string PyFloatRepr(double value);

// Reads the JSON list at `at` if it holds nothing but integers of 32 bits, and one at least: the
// place behind it. Any other is left for others to read, or to refuse: `at`.
size_t ReadIntList(std::string_view text, size_t at, std::vector<int32_t>& ints);

}  // namespace mft
