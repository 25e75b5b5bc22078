// SPDX-License-Identifier: Apache-2.0
#include "tests/support/emulated_device.h"
#include "tests/worker/model/device_kernels.h"

namespace mft::testing {

const KernelTable& DeviceKernels(bool bf16, int64_t /*head_dim*/) {
  return EmulatedKernels(bf16);
}

}  // namespace mft::testing
