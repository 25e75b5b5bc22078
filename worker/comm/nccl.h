// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "worker/comm/device_communicator.h"

struct CUstream_st;  // what CUDA's cudaStream_t points to

namespace mft {

// Names a new communicator: rank 0 makes it and hands it to the others. Throws std::runtime_error.
std::vector<std::byte> MakeNcclId();

// By NCCL, on the process's CUDA device and in order with the work of `stream`, which must outlive
// the object. Waits until all ranks have joined. DEADLINE_EXCEEDED
// (RANKS_DID_NOT_MEET); INVALID_ARGUMENT for an id of another size; INTERNAL names NCCL's call and
// error.
Result<std::unique_ptr<DeviceCommunicator>> MakeNcclCommunicator(const DeviceCommOptions& options,
                                                                 CUstream_st* stream);

}  // namespace mft
