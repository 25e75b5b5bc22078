// SPDX-License-Identifier: Apache-2.0
#include "worker/train/train_device.h"

#include <exception>
#include <vector>

#include "common/base/strings.h"
#include "worker/kernels/cuda_library.h"
#include "worker/model/status_error.h"

namespace mft {

namespace {
Result<TrainDevice> OpenCuda(int64_t local_rank, bool deterministic) {
  MFT_ASSIGN_OR_RETURN(const std::vector<CudaDeviceInfo> devices, CudaDevices());
  // Whoever gives each rank one device alone shows it one.
  const int64_t ordinal = devices.size() == 1 ? 0 : local_rank;
  if (ordinal >= static_cast<int64_t>(devices.size())) {
    return NotFound(
        StrCat("local rank ", local_rank, ": there are ", devices.size(), " CUDA devices"));
  }
  MFT_ASSIGN_OR_RETURN(const CudaApi* api, LoadCuda());
  try {
    api->open(static_cast<int>(ordinal), deterministic);
  } catch (const std::exception& error) {
    return Unavailable(StrCat("CUDA device ", ordinal, " does not open: ", error.what()));
  }
  return TrainDevice{.kind = "cuda", .name = devices[static_cast<size_t>(ordinal)].name};
}
}  // namespace

Result<TrainDevice> OpenTrainDevice(std::string_view wish, int64_t local_rank, bool deterministic) {
  if (wish == "cuda") {
    Result<TrainDevice> device = OpenCuda(local_rank, deterministic);
    return device.ok() ? device : device.status().WithContext("mftd.device cuda");
  }
  if (wish == "auto" && CudaDevices().ok()) {
    return OpenCuda(local_rank, deterministic);
  }
  return TrainDevice{};
}

Status CheckPrecision(std::string_view precision, const TrainDevice& device) {
  if (precision == "bf16" && !device.is_cuda() && CpuBf16Kernels() == nullptr) {
    return FailedPrecondition(
        "precision bf16: this processor has no instruction for it (AVX512-BF16); use auto or fp32");
  }
  if (precision == "fp8" && device.is_cuda()) {
    return Status::Ok();
  }
  if (precision != "auto" && precision != "fp32" && precision != "bf16") {
    return Unimplemented(StrCat("precision ",
                                precision,
                                device.is_cuda() ? ": a GPU computes in fp32, bf16 or fp8"
                                                 : ": the CPU computes in fp32 or bf16"));
  }
  return Status::Ok();
}

std::string ResolvePrecision(std::string_view precision,
                             bool bf16_weights,
                             const TrainDevice& device) {
  if (precision == "fp8") {
    return "fp8";
  }
  const bool has_bf16 = device.is_cuda() || CpuBf16Kernels() != nullptr;
  const bool bf16 = precision == "bf16" || (precision == "auto" && bf16_weights && has_bf16);
  return bf16 ? "bf16" : "fp32";
}

const KernelTable& KernelsFor(std::string_view precision,
                              const TrainDevice& device,
                              std::string_view attention) {
  const bool bf16 = precision != "fp32";
  if (device.is_cuda()) {
    return ValueOrThrow(LoadCuda())->kernels(bf16, attention);
  }
  return bf16 ? *CpuBf16Kernels() : CpuKernels();
}

}  // namespace mft
