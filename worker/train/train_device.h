// SPDX-License-Identifier: Apache-2.0
// What a job computes on: the CPU, or the one GPU of this rank.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "worker/kernels/kernels.h"

namespace mft {

struct TrainDevice {
  std::string kind = "cpu";  // cpu | cuda
  std::string name;          // "NVIDIA H200"; "" of the CPU
  bool is_cuda() const { return kind == "cuda"; }
};

// `wish`: auto (a GPU where there is one that can be used) | cpu | cuda. `local_rank`: which of
// those this process sees. Opens it. With cuda the errors of CudaDevices, and NOT_FOUND where there
// are fewer. `deterministic`: as CudaApi::open; the CPU is in any case.
Result<TrainDevice> OpenTrainDevice(std::string_view wish,
                                    int64_t local_rank,
                                    bool deterministic = false);

// FAILED_PRECONDITION or UNIMPLEMENTED where the device does not compute in `precision` (auto |
// fp32 | bf16 | fp8: the frozen base in e4m3, all else as bf16, on CUDA only; CanQuantise says
// more).
Status CheckPrecision(std::string_view precision, const TrainDevice& device = {});

// auto: bf16 where the weights are bf16 and the device multiplies it, otherwise fp32. REQUIRES
// CheckPrecision.
std::string ResolvePrecision(std::string_view precision,
                             bool bf16_weights,
                             const TrainDevice& device = {});

// REQUIRES a precision that ResolvePrecision gave. `attention`: of a CUDA device in bf16
// (CudaApi::kernels). Throws what opening the kernels throws.
const KernelTable& KernelsFor(std::string_view precision,
                              const TrainDevice& device = {},
                              std::string_view attention = "");

}  // namespace mft
