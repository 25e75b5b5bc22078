// SPDX-License-Identifier: Apache-2.0
// The device that device_test.cc and device_parity_test.cc are about. One file for each:
// emulated_kernels.cc, cuda_kernels.cc.
#pragma once

#include <cstdint>
#include <string>

#include "worker/kernels/kernels.h"

namespace mft::testing {

// For a model with heads of that width.
const KernelTable& DeviceKernels(bool bf16, int64_t head_dim = 64);

// One of the device's ways to compute attention in bf16.
struct DeviceAttention {
  std::string unusable;        // why it cannot be tried; "": it can
  bool deterministic = false;  // its backward pass
  const KernelTable* kernels = nullptr;
};
DeviceAttention AttentionOf(const std::string& backend, int64_t head_dim, int64_t rows);

}  // namespace mft::testing
