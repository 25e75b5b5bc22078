// SPDX-License-Identifier: Apache-2.0
// Throws where there is no GPU: a test that needs one fails, it is not skipped.
#include "tests/worker/model/device_kernels.h"
#include "worker/kernels/cuda_library.h"
#include "worker/model/status_error.h"

namespace mft::testing {

const KernelTable& DeviceKernels(bool bf16, int64_t head_dim) {
  static const CudaApi* const api = [] {
    ValueOrThrow(CudaDevices());
    const CudaApi* loaded = ValueOrThrow(LoadCuda());
    loaded->open(0, false);
    return loaded;
  }();
  return api->kernels(bf16, head_dim);
}

}  // namespace mft::testing
