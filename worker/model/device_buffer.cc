// SPDX-License-Identifier: Apache-2.0
#include "worker/model/device_buffer.h"

#include <algorithm>

#include "common/base/strings.h"
#include "worker/model/status_error.h"

namespace mft {

DeviceBuffer AllocateOnDevice(const DeviceMemory& memory, size_t bytes, const std::string& what) {
  void* const data = memory.allocate(std::max<size_t>(bytes, 1));
  if (data == nullptr) {
    throw StatusError(Status(Code::kResourceExhausted,
                             "OUT_OF_MEMORY",
                             StrCat("the device has no memory left for ",
                                    what,
                                    ": ",
                                    FormatBytes(static_cast<int64_t>(bytes)),
                                    ", free are ",
                                    FormatBytes(memory.free_bytes()))));
  }
  return {static_cast<std::byte*>(data), DeviceRelease{&memory}};
}

}  // namespace mft
