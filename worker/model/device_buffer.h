// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "worker/kernels/kernels.h"

namespace mft {

struct DeviceRelease {
  const DeviceMemory* memory = nullptr;
  void operator()(std::byte* data) const { memory->release(data); }
};
// Memory of a device, or null.
using DeviceBuffer = std::unique_ptr<std::byte[], DeviceRelease>;

// Not initialised. RESOURCE_EXHAUSTED (OUT_OF_MEMORY), thrown as StatusError, names `what` and what
// is left.
DeviceBuffer AllocateOnDevice(const DeviceMemory& memory, size_t bytes, const std::string& what);

}  // namespace mft
