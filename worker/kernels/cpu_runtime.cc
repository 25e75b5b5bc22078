// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/cpu_runtime.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
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

}  // namespace mft
