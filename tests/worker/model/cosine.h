// SPDX-License-Identifier: Apache-2.0
// How near two gradients are.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>

namespace mft::testing {

// Of two vectors of one size, in fp64.
inline double Cosine(std::span<const float> a, std::span<const float> b) {
  double dot = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    dot += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
  }
  return dot / std::sqrt(aa * bb);
}

}  // namespace mft::testing
