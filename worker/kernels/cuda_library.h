// SPDX-License-Identifier: Apache-2.0
// libmft_cuda.so: loaded when somebody asks for a GPU, so that the worker runs where there is none.
#pragma once

#include <vector>

#include "common/base/status.h"
#include "worker/kernels/cuda_api.h"

namespace mft {

// The library beside this program, loaded once. FAILED_PRECONDITION where this build has none, where
// it does not load (the loader's words) or is of another build. The table lives as long as the
// process.
Result<const CudaApi*> LoadCuda();

// The devices that this process sees, at least one. FAILED_PRECONDITION as LoadCuda, and where there
// is no device or no driver.
Result<std::vector<CudaDeviceInfo>> CudaDevices();

}  // namespace mft
