// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/cpu_runtime.h"

#include <algorithm>
#include <chrono>

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <torch/version.h>

namespace mft {

void SetCpuThreads(int threads) {
  at::set_num_threads(threads);
}

int CpuThreads() {
  return at::get_num_threads();
}

std::string TorchVersion() {
  return TORCH_VERSION;
}

std::string CpuCapability() {
  return at::get_cpu_capability();
}

double MatmulFlopsPerSecond(int64_t size, bool bf16) {
  const at::ScalarType type = bf16 ? at::kBFloat16 : at::kFloat;
  const at::Tensor a = at::rand({size, size}, type);
  const at::Tensor b = at::rand({size, size}, type);
  at::Tensor y = at::empty({size, size}, type);
  at::mm_out(y, a, b);  // pages of y, threads
  const auto n = static_cast<double>(size);
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    at::mm_out(y, a, b);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2 * n * n * n / spent.count());
  }
  return best;
}

}  // namespace mft
