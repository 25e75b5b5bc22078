// SPDX-License-Identifier: Apache-2.0
#include "tests/support/emulated_device.h"
#include "tests/worker/model/device_kernels.h"

namespace mft::testing {

const KernelTable& DeviceKernels(bool bf16, int64_t /*head_dim*/) {
  return EmulatedKernels(bf16);
}

DeviceAttention AttentionOf(const std::string& backend, int64_t /*head_dim*/, int64_t rows) {
  constexpr int64_t kMaxRows = 500;
  return {.unusable = backend != "rows" ? "the emulated device has none"
                      : rows > kMaxRows ? "that takes the emulated device too long"
                                        : "",
          .deterministic = true,
          .kernels = &EmulatedKernels(true)};
}

}  // namespace mft::testing
