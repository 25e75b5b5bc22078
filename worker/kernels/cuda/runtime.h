// SPDX-License-Identifier: Apache-2.0
// The process's CUDA device: one, opened once, since a rank is a process with a GPU of its own.
// Everything runs on its one compute stream, in the order of the calls.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

#include "worker/kernels/kernels.h"

namespace mft::cuda {

// Throws std::runtime_error that names the call and CUDA's error.
void Check(cudaError_t error, const std::string& call);

// Sets the process's device, creates its stream, pinned buffers and scratch. REQUIRES: not called
// before with another ordinal.
void OpenDevice(int ordinal);

// The following throw std::logic_error before OpenDevice.
int DeviceOrdinal();
cudaStream_t ComputeStream();
int ComputeCapability();  // 90: 9.0

// Memory for what a kernel leaves to the next one; one use at a time, in stream order. Throws
// std::length_error past its size (kScratchBytes).
inline constexpr size_t kScratchBytes = size_t{1} << 20;
void* KernelScratch(size_t bytes);

const DeviceMemory& Memory();

}  // namespace mft::cuda
