// SPDX-License-Identifier: Apache-2.0
// Random numbers as a function of a counter and a key: no hidden state, nothing to save or to keep
// in step between ranks.
#pragma once

#include <array>
#include <cstdint>

namespace mft {

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): four words.
inline std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                                      std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9;
  constexpr uint32_t kWeyl1 = 0xBB67AE85;
  const auto high = [](uint64_t value) { return static_cast<uint32_t>(value >> 32); };
  const auto low = [](uint64_t value) { return static_cast<uint32_t>(value); };
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {high(product1) ^ counter[1] ^ key[0],
               low(product1),
               high(product0) ^ counter[3] ^ key[1],
               low(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

// [0, 1) from a word: 24 bits, so every value is a float.
inline float UnitFloat(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24F;
}

}  // namespace mft
