// SPDX-License-Identifier: Apache-2.0
#include "worker/train/bench_yardstick.h"

#include <algorithm>
#include <chrono>

#include "worker/kernels/cpu_runtime.h"
#include "worker/model/device_buffer.h"

namespace mft {

namespace {
constexpr int64_t kCpuSize = 2048;
constexpr int64_t kDeviceSize = 8192;
constexpr int kRounds = 5;
constexpr int kProductsOfRound = 4;
}  // namespace

double YardstickFlopsPerSecond(const KernelTable& kernels, bool bf16) {
  if (kernels.memory == nullptr) {
    return MatmulFlopsPerSecond(kCpuSize, bf16);
  }
  const auto bytes = static_cast<size_t>(kDeviceSize * kDeviceSize * ElementBytes(kernels.type));
  const DeviceBuffer memory = AllocateOnDevice(*kernels.memory, 3 * bytes, "the yardstick");
  const auto matrix = [&](size_t i) {
    return TypedView(memory.get() + i * bytes, kDeviceSize, kDeviceSize, kernels.type);
  };
  kernels.fill_random(matrix(1), 1, 1.0F);
  kernels.fill_random(matrix(2), 2, 1.0F);
  const auto n = static_cast<double>(kDeviceSize);
  double best = 0;
  for (int round = 0; round <= kRounds; ++round) {  // the first one chooses the algorithm
    kernels.memory->synchronize();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kProductsOfRound; ++i) {
      kernels.gemm(matrix(0), matrix(1), matrix(2), {.transpose_b = true});
    }
    kernels.memory->synchronize();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    best = round == 0 ? 0 : std::max(best, kProductsOfRound * 2 * n * n * n / spent.count());
  }
  return best;
}

}  // namespace mft
