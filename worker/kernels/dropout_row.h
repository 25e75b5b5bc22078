// SPDX-License-Identifier: Apache-2.0
// The body of dropout, static and of built-ins only as elementwise.h.
#pragma once

#include <cstdint>

#include "worker/kernels/philox.h"
#include "worker/kernels/row_kernels.h"

namespace mft::elementwise {

// Of a mask but its row and pack.
static inline DropoutRowKey DropoutKeyOf(uint64_t key, double probability) {
  return {.key0 = static_cast<uint32_t>(key),
          .key1 = static_cast<uint32_t>(key >> 32),
          .threshold = static_cast<uint32_t>(probability * (1 << 24)),
          .scale = static_cast<float>(1 / (1 - probability))};
}

// The four words of columns 4 block .. 4 block + 3 of a row.
static constexpr void DropoutWords(uint32_t (&words)[4][1],
                                   const DropoutRowKey& key,
                                   int64_t block) {
  words[0][0] = static_cast<uint32_t>(block);
  words[1][0] = key.row;
  words[2][0] = static_cast<uint32_t>(key.pack);
  words[3][0] = static_cast<uint32_t>(key.pack >> 32);
  PhiloxLanes<1>(words, key.key0, key.key1);
}

// y = x m scale, or y += that, with the mask m of a row: column c is kept unless the word c % 4 of
// the counter {c / 4, row, pack} falls below `threshold` of 2^24. The mask depends on nothing else,
// so it is the same in every chunk, tile and pass (numerics.md, "Precision").
template <typename T>
static void DropoutRow(T* y, const T* x, int64_t n, const DropoutRowKey& key, bool add) {
  constexpr int kLanes = 8;
  const T scale = static_cast<T>(key.scale);
  for (int64_t begin = 0; begin < n; begin += 4 * kLanes) {
    uint32_t words[4][kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      words[0][lane] = static_cast<uint32_t>(begin / 4 + lane);
      words[1][lane] = key.row;
      words[2][lane] = static_cast<uint32_t>(key.pack);
      words[3][lane] = static_cast<uint32_t>(key.pack >> 32);
    }
    PhiloxLanes<kLanes>(words, key.key0, key.key1);
    const int64_t count = n - begin < 4 * kLanes ? n - begin : 4 * kLanes;
    for (int64_t i = 0; i < count; ++i) {
      const bool kept = (words[i % 4][i / 4] >> 8) >= key.threshold;
      const T value = kept ? x[begin + i] * scale : T(0);
      y[begin + i] = add ? y[begin + i] + value : value;
    }
  }
}

}  // namespace mft::elementwise
