// SPDX-License-Identifier: Apache-2.0
// The classes of characters that Tekken's pattern tells apart (formats.md 1.4), by Unicode 16, as
// in the engine that Mistral's library uses. Generated, because libraries bring other versions:
// PCRE2 10.42 has Unicode 14 and differs in 9,485 code points.
#pragma once

#include <cstdint>
#include <span>

namespace mft {

enum class CharClass : uint8_t {
  kOther = 0,
  kUpper = 1,   // Lu, Lt
  kLower = 2,   // Ll
  kLetter = 3,  // Lm, Lo: neither upper nor lower
  kMark = 4,    // M
  kNumber = 5,  // N
  kSpace = 6,   // White_Space without the line ends
  kLineEnd = 7  // CR, LF
};

// first code point << 4 | class, ascending from 0; a run ends where the next begins.
std::span<const uint32_t> CharClassRuns();

// The class of every code point up to U+10FFFF. Threads: any.
const CharClass* CharClassTable();

}  // namespace mft
