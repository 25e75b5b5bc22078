// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mft {

inline constexpr size_t kTextWindowBytes = size_t{1} << 20;

// Appends the ids of a text of any length window by window, so that what an encoder needs beside
// the ids is that of a window. `cut(at)` gives a place from `at` on, or the end, where the text may
// be cut without changing its ids; `encode(window, is_first)` appends those of a window, and false
// from it ends it all.
template <typename Cut, typename Encode>
bool EncodeInWindows(std::string_view text,
                     const Cut& cut,
                     const Encode& encode,
                     std::vector<int32_t>& out) {
  const size_t before = out.size();
  for (size_t begin = 0; begin < text.size();) {
    const size_t left = text.size() - begin;
    const size_t end = left <= kTextWindowBytes ? text.size() : cut(begin + kTextWindowBytes);
    if (!encode(text.substr(begin, end - begin), begin == 0)) {
      return false;
    }
    begin = end;
    // Growing by doubling would hold up to three times the ids for a moment.
    const double ids_per_byte =
        static_cast<double>(out.size() - before) / static_cast<double>(begin);
    const auto expected =
        out.size() + static_cast<size_t>(ids_per_byte * static_cast<double>(text.size() - begin));
    if (begin < text.size() && out.capacity() < expected) {
      out.reserve(expected + expected / 16);
    }
  }
  return true;
}

}  // namespace mft
