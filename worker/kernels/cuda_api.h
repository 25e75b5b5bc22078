// SPDX-License-Identifier: Apache-2.0
// What the worker finds in libmft_cuda.so: one C function that returns this table. The worker and
// the library are of one build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "worker/kernels/kernels.h"

namespace mft {

class DeviceCommunicator;  // worker/comm/device_communicator.h
struct DeviceCommOptions;

inline constexpr int kCudaApiVersion = 1;
inline constexpr const char* kCudaLibrary = "libmft_cuda.so";
inline constexpr const char* kCudaEntry = "mft_cuda_api";

struct CudaDeviceInfo {
  int ordinal = 0;
  std::string name;  // "NVIDIA H200"
  int major = 0;     // compute capability
  int minor = 0;
  int64_t memory_bytes = 0;
};

// Functions throw std::runtime_error that names the call and the library's error.
struct CudaApi {
  int version = kCudaApiVersion;
  int kernel_table_version = kKernelTableVersion;
  // All devices that this process sees, which may be none.
  std::vector<CudaDeviceInfo> (*devices)() = nullptr;
  // Makes a device the process's. A process opens one, once. `deterministic`: the same bits in every
  // run, for more memory and time in attention's backward pass.
  void (*open)(int ordinal, bool deterministic) = nullptr;
  // Its kernels, after open. `head_dim` decides on the attention kernels.
  const KernelTable& (*kernels)(bool bf16, int64_t head_dim) = nullptr;
  // NCCL's (worker/comm/nccl.h); the second after open.
  std::vector<std::byte> (*make_communicator_id)() = nullptr;
  Result<std::unique_ptr<DeviceCommunicator>> (*communicate)(const DeviceCommOptions& options) =
      nullptr;
};

using CudaEntryPoint = const CudaApi* (*)();

}  // namespace mft
