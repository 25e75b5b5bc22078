// SPDX-License-Identifier: Apache-2.0
// Helpers of the kernel tests: values, and the instruction sets of this machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/emulated_device.h"
#include "worker/kernels/kernels.h"

namespace mft::testing {

inline std::vector<float> NormalFloats(int64_t count, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(count));
  std::generate(values.begin(), values.end(), [&] { return normal(random); });
  return values;
}

inline std::vector<double> Doubles(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

inline std::vector<double> NormalDoubles(int64_t count, uint32_t seed) {
  return Doubles(NormalFloats(count, seed));
}

// Largest difference, relative to the largest magnitude expected (at least 1e-30).
template <typename Actual, typename Expected>
double RelativeError(const Actual& actual, const Expected& expected) {
  double error = 0;
  double scale = 1e-30;
  for (size_t i = 0; i < expected.size(); ++i) {
    error = std::max(error, std::abs(static_cast<double>(actual[i]) - expected[i]));
    scale = std::max(scale, std::abs(static_cast<double>(expected[i])));
  }
  return std::isnan(error) ? INFINITY : error / scale;
}

// Central differences of f at x.
inline std::vector<double> NumericGradient(
    const std::function<double(const std::vector<double>&)>& f, std::vector<double> x) {
  constexpr double kStep = 1e-6;
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + kStep;
    const double above = f(x);
    x[i] = at - kStep;
    gradient[i] = (above - f(x)) / (2 * kStep);
    x[i] = at;
  }
  return gradient;
}

inline double DotProduct(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

// Those of `sets` that this machine can run.
inline std::vector<std::string> Supported(std::vector<std::string> sets) {
  std::erase_if(sets, [](const std::string& set) { return CpuKernelsFor(set) == nullptr; });
  return sets;
}

inline std::vector<std::string> InstructionSets() {
  return Supported({"avx512", "avx512-mkl", "avx2", "baseline"});
}

// With CUDA's kernels, run by the CPU.
inline std::vector<std::string> RowSets() {
  std::vector<std::string> sets = InstructionSets();
  sets.emplace_back("emulated");
  return sets;
}

inline const KernelTable& KernelsNamed(const std::string& set) {
  return set == "emulated" ? EmulatedKernelsOnHostMemory() : *CpuKernelsFor(set);
}

// With those for bf16, whose products are exact only for operands that bf16 holds.
inline std::vector<std::string> ProductSets() {
  return Supported({"avx512", "avx512-mkl", "avx2", "baseline", "avx512-bf16", "avx512-amx-bf16"});
}

// "avx512-mkl" as a part of a test's name.
inline std::string TestName(const ::testing::TestParamInfo<std::string>& set) {
  std::string name = set.param;
  std::erase(name, '-');
  return name;
}

}  // namespace mft::testing
