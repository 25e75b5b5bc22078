// SPDX-License-Identifier: Apache-2.0
#include "server/gpu_inventory.h"

#include <dlfcn.h>

#include <array>
#include <memory>

#include "common/base/strings.h"

namespace mft::server {

namespace {
// The part of NVML's ABI that is used here (nvml.h of CUDA 13): stable since version 2 of these
// functions.
using NvmlDevice = void*;
struct NvmlMemory {
  unsigned long long total, free, used;
};
struct NvmlProcess {
  unsigned pid;
  unsigned long long used_memory;
  unsigned gpu_instance, compute_instance;
};

struct CloseLibrary {
  void operator()(void* library) const { dlclose(library); }
};

class Nvml {
 public:
  static std::unique_ptr<Nvml> Load(std::string& why) {
    std::unique_ptr<Nvml> nvml(new Nvml);
    nvml->library_.reset(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL));
    if (nvml->library_ == nullptr) {
      why = "no NVIDIA driver (libnvidia-ml.so.1 is not installed)";
      return nullptr;
    }
    const bool complete = nvml->Find(nvml->init_, "nvmlInit_v2") &&
                          nvml->Find(nvml->shutdown_, "nvmlShutdown") &&
                          nvml->Find(nvml->count_, "nvmlDeviceGetCount_v2") &&
                          nvml->Find(nvml->handle_, "nvmlDeviceGetHandleByIndex_v2") &&
                          nvml->Find(nvml->uuid_, "nvmlDeviceGetUUID") &&
                          nvml->Find(nvml->name_, "nvmlDeviceGetName") &&
                          nvml->Find(nvml->memory_, "nvmlDeviceGetMemoryInfo") &&
                          nvml->Find(nvml->processes_, "nvmlDeviceGetComputeRunningProcesses_v3");
    if (!complete || nvml->init_() != 0) {
      why = complete ? "NVML does not start" : "the NVIDIA driver is too old";
      return nullptr;
    }
    nvml->initialised_ = true;
    return nvml;
  }

  ~Nvml() {
    if (initialised_) {
      shutdown_();
    }
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  std::vector<GpuInfo> List() const {
    unsigned count = 0;
    std::vector<GpuInfo> gpus;
    if (count_(&count) != 0) {
      return gpus;
    }
    for (unsigned i = 0; i < count; ++i) {
      gpus.push_back(Describe(i));
    }
    return gpus;
  }

 private:
  Nvml() = default;

  template <typename Function>
  bool Find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library_.get(), name));
    return function != nullptr;
  }

  GpuInfo Describe(unsigned index) const {
    GpuInfo gpu{.id = StrCat("gpu:", index)};
    NvmlDevice device = nullptr;
    std::array<char, 96> text{};
    if (handle_(index, &device) != 0 || uuid_(device, text.data(), text.size()) != 0) {
      gpu.available = false;
      gpu.detail = "does not answer";
      return gpu;
    }
    gpu.uuid = text.data();
    gpu.name = name_(device, text.data(), text.size()) == 0 ? text.data() : "";
    NvmlMemory memory{};
    if (memory_(device, &memory) == 0) {
      gpu.memory_bytes = static_cast<int64_t>(memory.total);
      gpu.memory_free_bytes = static_cast<int64_t>(memory.free);
    }
    std::array<NvmlProcess, 64> processes{};
    unsigned num_processes = processes.size();
    if (processes_(device, &num_processes, processes.data()) == 0 && num_processes > 0) {
      gpu.available = false;
      gpu.detail = StrCat("used by process ", processes[0].pid);
    }
    return gpu;
  }

  std::unique_ptr<void, CloseLibrary> library_;
  bool initialised_ = false;
  int (*init_)() = nullptr;
  int (*shutdown_)() = nullptr;
  int (*count_)(unsigned*) = nullptr;
  int (*handle_)(unsigned, NvmlDevice*) = nullptr;
  int (*uuid_)(NvmlDevice, char*, unsigned) = nullptr;
  int (*name_)(NvmlDevice, char*, unsigned) = nullptr;
  int (*memory_)(NvmlDevice, NvmlMemory*) = nullptr;
  int (*processes_)(NvmlDevice, unsigned*, NvmlProcess*) = nullptr;
};
}  // namespace

std::vector<GpuInfo> ListGpus(std::string& why) {
  const auto nvml = Nvml::Load(why);
  return nvml == nullptr ? std::vector<GpuInfo>() : nvml->List();
}

}  // namespace mft::server
