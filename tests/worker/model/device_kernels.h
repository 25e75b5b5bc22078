// SPDX-License-Identifier: Apache-2.0
// The device that device_test.cc and device_parity_test.cc are about. One file for each:
// emulated_kernels.cc, cuda_kernels.cc.
#pragma once

#include <cstdint>

#include "worker/kernels/kernels.h"

namespace mft::testing {

// For a model with heads of that width.
const KernelTable& DeviceKernels(bool bf16, int64_t head_dim = 64);

}  // namespace mft::testing
