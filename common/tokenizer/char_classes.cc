// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/char_classes.h"

#include <algorithm>
#include <vector>

namespace mft {

const CharClass* CharClassTable() {
  static const std::vector<CharClass> table = [] {
    constexpr size_t kCodePoints = 0x110000;
    std::vector<CharClass> classes(kCodePoints);
    const std::span<const uint32_t> runs = CharClassRuns();
    for (size_t i = 0; i < runs.size(); ++i) {
      const size_t begin = runs[i] >> 4;
      const size_t end = i + 1 < runs.size() ? runs[i + 1] >> 4 : kCodePoints;
      std::fill(classes.begin() + static_cast<std::ptrdiff_t>(begin),
                classes.begin() + static_cast<std::ptrdiff_t>(end),
                static_cast<CharClass>(runs[i] & 15));
    }
    return classes;
  }();
  return table.data();
}

}  // namespace mft
