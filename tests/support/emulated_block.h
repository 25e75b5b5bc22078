// SPDX-License-Identifier: Apache-2.0
// Blocks of threads (worker/kernels/cuda/block_table.h) on the CPU: what a thread does comes after
// what the thread before it does, up to the next reduction.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "worker/kernels/cuda/block_table.h"
#include "worker/kernels/cuda/quantise_blocks.h"

namespace mft::testing {

template <int kThreads>
class EmulatedBlock {
 public:
  template <typename F>
  void ForEach(int64_t n, const F& f) {
    for (int64_t thread = 0; thread < kThreads; ++thread) {
      for (int64_t i = thread; i < n; i += kThreads) {
        f(i);
      }
    }
  }

  template <typename F>
  auto Sum(int64_t n, const F& f) {
    using T = decltype(f(0));
    std::array<T, kThreads> values{};
    ForEach(n, [&](int64_t i) {
      T& value = values[static_cast<size_t>(i % kThreads)];
      value = value + f(i);
    });
    return Reduce(values, [](const T& a, const T& b) { return a + b; });
  }

  template <typename F>
  float Max(int64_t n, const F& f) {
    std::array<float, kThreads> values;
    values.fill(-INFINITY);
    ForEach(n, [&](int64_t i) {
      float& value = values[static_cast<size_t>(i % kThreads)];
      const float other = f(i);
      value = other > value ? other : value;
    });
    return Reduce(values, [](float a, float b) { return a > b ? a : b; });
  }

  template <int kGroup, int kOutputs, int kWidth, typename Values, typename Use>
  void ForGroups(int64_t n, const Values& values, const Use& use) {
    for (int64_t begin = 0; begin < n; begin += kGroup) {
      float v[kGroup][kOutputs][kWidth];
      float largest[kOutputs] = {};
      for (int i = 0; i < kGroup; ++i) {
        values(begin + i, v[i]);
        for (int o = 0; o < kOutputs; ++o) {
          largest[o] = std::max(largest[o], cuda::LargestMagnitude(v[i][o]));
        }
      }
      for (int i = 0; i < kGroup; ++i) {
        use(begin + i, v[i], largest);
      }
    }
  }

  template <typename F>
  void Once(const F& f) {
    f();
  }

  template <int kElements>
  struct Lanes {
    std::array<float, kElements * kThreads> value;
  };
  template <int kElements, typename F>
  void ForLanes(int64_t n, Lanes<kElements>& lanes, const F& f) {
    for (int64_t i = 0; i < n; ++i) {
      f(i, lanes.value[static_cast<size_t>(i)]);
    }
  }

 private:
  // Butterflies within each warp, then warp after warp.
  template <typename T, typename Op>
  static T Reduce(std::array<T, kThreads> values, const Op& op) {
    constexpr auto kWarp = static_cast<size_t>(cuda::kWarp);
    for (size_t lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      const std::array<T, kThreads> before = values;
      for (size_t i = 0; i < kThreads; ++i) {
        values[i] = op(before[i], before[i ^ lanes]);
      }
    }
    T total = values[0];
    for (size_t warp = kWarp; warp < kThreads; warp += kWarp) {
      total = op(total, values[warp]);
    }
    return total;
  }
};

}  // namespace mft::testing
