// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <stdexcept>

#include "worker/comm/nccl.h"
#include "worker/kernels/cuda/flash_attention.h"
#include "worker/kernels/cuda/gemm.h"
#include "worker/kernels/cuda/gemm_quantised.h"
#include "worker/kernels/cuda/runtime.h"
#include "worker/kernels/cuda/tables.h"
#include "worker/kernels/cuda_api.h"

namespace mft {

namespace {
std::vector<CudaDeviceInfo> Devices() {
  int count = 0;
  cuda::Check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  std::vector<CudaDeviceInfo> devices;
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    cudaDeviceProp properties{};
    cuda::Check(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties");
    devices.push_back({.ordinal = ordinal,
                       .name = properties.name,
                       .major = properties.major,
                       .minor = properties.minor,
                       .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem)});
  }
  return devices;
}

void Open(int ordinal, bool deterministic) {
  cuda::OpenDevice(ordinal);
  cuda::LoadTorch();
  cuda::SetDeterministic(deterministic);
}

KernelTable MakeKernels(bool bf16, bool flash) {
  KernelTable table = bf16 ? cuda::BlockTableBF16() : cuda::BlockTableF32();
  table.gemm = cuda::Gemm;
  table.name = flash ? "cuda-bf16-flash" : bf16 ? "cuda-bf16" : "cuda-fp32";
  if (bf16 && cuda::HasQuantisedGemm()) {
    table.gemm_quantised = cuda::GemmQuantised;
  }
  if (flash) {
    cuda::OpenTorch();
    table.attention = cuda::FlashAttention;
    table.attention_backward = cuda::FlashAttentionBackward;
  }
  return table;
}

const KernelTable& Kernels(bool bf16, int64_t head_dim) {
  if (!bf16) {
    static const KernelTable fp32 = MakeKernels(false, false);
    return fp32;
  }
  if (!cuda::HasFlashAttention(head_dim)) {
    static const KernelTable rows = MakeKernels(true, false);
    return rows;
  }
  static const KernelTable flash = MakeKernels(true, true);
  return flash;
}

Result<std::unique_ptr<DeviceCommunicator>> Communicate(const DeviceCommOptions& options) {
  return MakeNcclCommunicator(options, cuda::ComputeStream());
}
}  // namespace

}  // namespace mft

extern "C" __attribute__((visibility("default"))) const mft::CudaApi* mft_cuda_api() {
  static const mft::CudaApi api = {.devices = mft::Devices,
                                   .open = mft::Open,
                                   .kernels = mft::Kernels,
                                   .make_communicator_id = mft::MakeNcclId,
                                   .communicate = mft::Communicate};
  return &api;
}
