// SPDX-License-Identifier: Apache-2.0
// What the worker finds in libmft_cuda.so: one C function that returns this table. The worker and
// the library are of one build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "worker/kernels/kernels.h"

namespace mft {

class DeviceCommunicator;  // worker/comm/device_communicator.h
struct DeviceCommOptions;

inline constexpr int kCudaApiVersion = 2;
inline constexpr const char* kCudaLibrary = "libmft_cuda.so";
inline constexpr const char* kCudaEntry = "mft_cuda_api";

struct CudaDeviceInfo {
  int ordinal = 0;
  std::string name;  // "NVIDIA H200"
  int major = 0;     // compute capability
  int minor = 0;
  int64_t memory_bytes = 0;
};

// A way to compute attention in bf16.
struct AttentionBackend {
  std::string name;            // "rows", "flash", "cudnn"
  bool deterministic = false;  // its backward pass, as the device was opened
  std::string unusable;        // why it cannot be tried; "": it can
};

// Functions throw std::runtime_error that names the call and the library's error.
struct CudaApi {
  int version = kCudaApiVersion;
  int kernel_table_version = kKernelTableVersion;
  // All devices that this process sees, which may be none.
  std::vector<CudaDeviceInfo> (*devices)() = nullptr;
  // Makes a device the process's. A process opens one, once. `deterministic`: the same bits in
  // every run, for more memory and time in attention's backward pass.
  void (*open)(int ordinal, bool deterministic) = nullptr;
  // All there are for heads of that width, after open. The first, "rows", is exact and slow and can
  // always be used to 256 elements.
  std::vector<AttentionBackend> (*attention_backends)(int64_t head_dim) = nullptr;
  // Its kernels, after open. `attention` names a backend; "" is "rows", the only one of fp32. Of
  // one name the table is the same. std::invalid_argument where there is none of that name.
  const KernelTable& (*kernels)(bool bf16, std::string_view attention) = nullptr;
  // Gives memory that attention keeps for later back to the device.
  void (*release_cached)() = nullptr;
  // NCCL's (worker/comm/nccl.h); the second after open.
  std::vector<std::byte> (*make_communicator_id)() = nullptr;
  Result<std::unique_ptr<DeviceCommunicator>> (*communicate)(const DeviceCommOptions& options) =
      nullptr;
};

using CudaEntryPoint = const CudaApi* (*)();

}  // namespace mft
