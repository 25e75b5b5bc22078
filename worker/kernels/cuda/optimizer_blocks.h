// SPDX-License-Identifier: Apache-2.0
// One pass over flat arenas: AdamW, sums of squares; and random values.
#pragma once

#include "worker/kernels/adamw_element.h"
#include "worker/kernels/cuda/block_load.h"
#include "worker/kernels/kernels.h"
#include "worker/kernels/philox.h"

namespace mft::cuda {

constexpr int64_t kArenaPart = 4096;  // elements of a block

template <typename Copy>
struct AdamWPart {
  AdamWArenas arenas;
  AdamWScalars scalars;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t part) const {
    const int64_t begin = part * kArenaPart;
    const int64_t count = arenas.size - begin < kArenaPart ? arenas.size - begin : kArenaPart;
    Copy* const copy = static_cast<Copy*>(arenas.copy);
    block.ForEach(count, [&](int64_t k) {
      const int64_t i = begin + k;
      float m = arenas.m[i];
      float v = arenas.v[i];
      float weight = arenas.weight[i];
      AdamWElement(scalars, arenas.grad[i], m, v, weight);
      arenas.m[i] = m;
      arenas.v[i] = v;
      arenas.weight[i] = weight;
      if (copy != nullptr) {
        copy[i] = Copy(weight);
      }
    });
  }
};

// Two passes, so that the sum has one order: sums [parts] of parts of the values, then the sum of
// those by one block.
constexpr int64_t kMaxSumParts = 2048;

struct SquaresOfPart {
  const float* values;
  int64_t size;
  int64_t part_size;
  double* sums;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t part) const {
    const int64_t begin = part * part_size;
    const int64_t count = size - begin < part_size ? size - begin : part_size;
    const double sum = block.Sum(count, [&](int64_t k) {
      const double value = values[begin + k];
      return value * value;
    });
    block.Once([&] { sums[part] = sum; });
  }
};

struct SumOfParts {
  const double* sums;
  int64_t parts;
  double* sum;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t /*index*/) const {
    const double total = block.Sum(parts, [&](int64_t i) { return sums[i]; });
    block.Once([&] { *sum = total; });
  }
};

template <typename T>
struct RandomRow {
  Rows<T> y;
  uint64_t seed;
  float scale;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    T* const out = y(row);
    block.ForEach((y.cols + 3) / 4, [&](int64_t i) {
      uint32_t words[4][1] = {{static_cast<uint32_t>(i)},
                              {static_cast<uint32_t>(row)},
                              {static_cast<uint32_t>(row >> 32)},
                              {0}};
      PhiloxLanes<1>(words, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
      for (int64_t k = 0; k < 4 && 4 * i + k < y.cols; ++k) {
        out[4 * i + k] = T(scale * (2.0F * UnitFloat(words[k][0]) - 1.0F));
      }
    });
  }
};

}  // namespace mft::cuda
