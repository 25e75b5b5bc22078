// SPDX-License-Identifier: Apache-2.0
// Random numbers as a function of a counter and a key: no hidden state, nothing to save or to keep
// in step between ranks.
#pragma once

#include <array>
#include <cstdint>

namespace mft {

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) for kLanes
// counters at once: word k of lane l is words[k][l], first a counter, then four random words.
// Static and built-ins only, as elementwise.h.
template <int kLanes>
static constexpr void PhiloxLanes(uint32_t (&words)[4][kLanes], uint32_t key0, uint32_t key1) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9;
  constexpr uint32_t kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint64_t product0 = kMultiplier0 * words[0][lane];
      const uint64_t product1 = kMultiplier1 * words[2][lane];
      words[0][lane] = static_cast<uint32_t>(product1 >> 32) ^ words[1][lane] ^ key0;
      words[1][lane] = static_cast<uint32_t>(product1);
      words[2][lane] = static_cast<uint32_t>(product0 >> 32) ^ words[3][lane] ^ key1;
      words[3][lane] = static_cast<uint32_t>(product0);
    }
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
}

// Four words of one counter.
inline std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                                      std::array<uint32_t, 2> key) {
  uint32_t words[4][1] = {{counter[0]}, {counter[1]}, {counter[2]}, {counter[3]}};
  PhiloxLanes<1>(words, key[0], key[1]);
  return {words[0][0], words[1][0], words[2][0], words[3][0]};
}

// [0, 1) from a word: 24 bits, so every value is a float.
constexpr float UnitFloat(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24F;
}

}  // namespace mft
