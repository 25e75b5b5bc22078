// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "worker/comm/nccl.h"
#include "worker/kernels/cuda/cudnn_attention.h"
#include "worker/kernels/cuda/flash_attention.h"
#include "worker/kernels/cuda/gemm.h"
#include "worker/kernels/cuda/gemm_quantised.h"
#include "worker/kernels/cuda/runtime.h"
#include "worker/kernels/cuda/tables.h"
#include "worker/kernels/cuda_api.h"

namespace mft {

namespace {
constexpr std::string_view kRows = "rows";
constexpr std::string_view kFlash = "flash";
constexpr std::string_view kCudnn = "cudnn";

constexpr int kMinMajor = 8;

bool g_deterministic = false;

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
  const CudaDeviceInfo device = Devices().at(static_cast<size_t>(ordinal));
  if (device.major < kMinMajor) {
    throw std::runtime_error(device.name + " has compute capability " +
                             std::to_string(device.major) + "." + std::to_string(device.minor) +
                             ", this build has kernels for " + std::to_string(kMinMajor) +
                             ".0 and later");
  }
  cuda::OpenDevice(ordinal);
  cuda::LoadTorch();
  cuda::SetDeterministic(deterministic);
  g_deterministic = deterministic;
}

std::vector<AttentionBackend> AttentionBackends(int64_t head_dim) {
  return {{.name = std::string(kRows), .deterministic = true, .unusable = ""},
          {.name = std::string(kFlash),
           .deterministic = g_deterministic,
           .unusable = cuda::WhyNoFlashAttention(head_dim)},
          {.name = std::string(kCudnn),
           .deterministic = false,
           .unusable = cuda::WhyNoCudnnAttention(head_dim)}};
}

KernelTable MakeFp32() {
  KernelTable table = cuda::BlockTableF32();
  table.gemm = cuda::Gemm;
  table.name = "cuda-fp32";
  return table;
}

KernelTable MakeBf16() {
  KernelTable table = cuda::BlockTableBF16();
  table.gemm = cuda::Gemm;
  table.name = "cuda-bf16";
  if (cuda::HasQuantisedGemm()) {
    table.gemm_quantised = cuda::GemmQuantised;
  }
  return table;
}

KernelTable MakeFlash() {
  cuda::OpenTorch();
  KernelTable table = MakeBf16();
  table.name = "cuda-bf16-flash";
  table.attention = cuda::FlashAttention;
  table.attention_backward = cuda::FlashAttentionBackward;
  return table;
}

KernelTable MakeCudnn() {
  KernelTable table = MakeBf16();
  table.name = "cuda-bf16-cudnn";
  table.attention = cuda::CudnnAttention;
  table.attention_backward = cuda::CudnnAttentionBackward;
  return table;
}

const KernelTable& Kernels(bool bf16, std::string_view attention) {
  if (!bf16) {
    static const KernelTable fp32 = MakeFp32();
    return fp32;
  }
  if (attention == kFlash) {
    static const KernelTable flash = MakeFlash();
    return flash;
  }
  if (attention == kCudnn) {
    static const KernelTable cudnn = MakeCudnn();
    return cudnn;
  }
  if (!attention.empty() && attention != kRows) {
    throw std::invalid_argument("no attention is called " + std::string(attention));
  }
  static const KernelTable rows = MakeBf16();
  return rows;
}

void ReleaseCached() {
  cuda::ReleaseTorchCache();
  cuda::ReleaseCudnnWorkspace();
}

Result<std::unique_ptr<DeviceCommunicator>> Communicate(const DeviceCommOptions& options) {
  return MakeNcclCommunicator(options, cuda::ComputeStream());
}
}  // namespace

}  // namespace mft

extern "C" __attribute__((visibility("default"))) const mft::CudaApi* mft_cuda_api() {
  static const mft::CudaApi api = {.devices = mft::Devices,
                                   .open = mft::Open,
                                   .attention_backends = mft::AttentionBackends,
                                   .kernels = mft::Kernels,
                                   .release_cached = mft::ReleaseCached,
                                   .make_communicator_id = mft::MakeNcclId,
                                   .communicate = mft::Communicate};
  return &api;
}
