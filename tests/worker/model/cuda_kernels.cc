// SPDX-License-Identifier: Apache-2.0
// Throws where there is no GPU: a test that needs one fails, it is not skipped.
#include "tests/worker/model/device_kernels.h"
#include "worker/kernels/cuda_library.h"
#include "worker/model/status_error.h"

namespace mft::testing {

namespace {
const CudaApi& Opened() {
  static const CudaApi* const api = [] {
    ValueOrThrow(CudaDevices());
    const CudaApi* loaded = ValueOrThrow(LoadCuda());
    loaded->open(0, true);  // bits are compared
    return loaded;
  }();
  return *api;
}
}  // namespace

const KernelTable& DeviceKernels(bool bf16, int64_t head_dim) {
  const bool flash = bf16 && AttentionOf("flash", head_dim, 0).unusable.empty();
  return Opened().kernels(bf16, flash ? "flash" : "rows");
}

DeviceAttention AttentionOf(const std::string& backend, int64_t head_dim, int64_t /*rows*/) {
  for (const AttentionBackend& known : Opened().attention_backends(head_dim)) {
    if (known.name == backend) {
      return {.unusable = known.unusable,
              .deterministic = known.deterministic,
              .kernels = known.unusable.empty() ? &Opened().kernels(true, backend) : nullptr};
    }
  }
  return {.unusable = "this library has none of that name"};
}

}  // namespace mft::testing
