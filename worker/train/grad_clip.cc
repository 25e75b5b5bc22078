// SPDX-License-Identifier: Apache-2.0
#include "worker/train/grad_clip.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace mft {

namespace {
constexpr int64_t kBlock = 1 << 14;
constexpr double kNormEps = 1e-6;
}  // namespace

double SumOfSquares(std::span<const float> gradient) {
  const auto size = static_cast<int64_t>(gradient.size());
  const int64_t blocks = (size + kBlock - 1) / kBlock;
  std::vector<double> sums(static_cast<size_t>(blocks));
  const float* const values = gradient.data();
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t end = std::min(size, (block + 1) * kBlock);
    double sum = 0;
    for (int64_t i = block * kBlock; i < end; ++i) {
      sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
    sums[static_cast<size_t>(block)] = sum;
  }
  double total = 0;
  for (const double sum : sums) {
    total += sum;
  }
  return total;
}

double ClipFactor(double norm, double max_norm) {
  if (std::isnan(norm)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return std::min(1.0, max_norm / (norm + kNormEps));
}

}  // namespace mft
