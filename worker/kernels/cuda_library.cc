// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/cuda_library.h"

#include <dlfcn.h>

#include <exception>
#include <string>

#include "common/base/files.h"
#include "common/base/strings.h"

namespace mft {

namespace {
Result<const CudaApi*> Load() {
  const std::string path = JoinPath(ExecutableDir(), kCudaLibrary);
  if (!PathExists(path)) {
    return FailedPrecondition(
        StrCat("this build has no CUDA backend (", path, " is not there); use device: cpu"));
  }
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    return FailedPrecondition(StrCat("the CUDA backend does not load: ", dlerror()));
  }
  auto* const entry = reinterpret_cast<CudaEntryPoint>(dlsym(library, kCudaEntry));
  if (entry == nullptr) {
    return FailedPrecondition(StrCat(path, ": has no ", kCudaEntry));
  }
  const CudaApi* const api = entry();
  if (api->version != kCudaApiVersion || api->kernel_table_version != kKernelTableVersion) {
    return FailedPrecondition(StrCat(path,
                                     " is of another build: versions ",
                                     api->version,
                                     " and ",
                                     api->kernel_table_version,
                                     ", this program has ",
                                     kCudaApiVersion,
                                     " and ",
                                     kKernelTableVersion));
  }
  return api;
}
}  // namespace

Result<const CudaApi*> LoadCuda() {
  static const Result<const CudaApi*> loaded = Load();
  return loaded;
}

Result<std::vector<CudaDeviceInfo>> CudaDevices() {
  MFT_ASSIGN_OR_RETURN(const CudaApi* api, LoadCuda());
  try {
    std::vector<CudaDeviceInfo> devices = api->devices();
    if (devices.empty()) {
      return FailedPrecondition("no CUDA device");
    }
    return devices;
  } catch (const std::exception& error) {
    return FailedPrecondition(StrCat("no CUDA device can be used: ", error.what()));
  }
}

}  // namespace mft
