// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>

namespace mft {

// A device has no memory left for what a kernel allocates itself. Thrown out of a library that is
// loaded at run time, so its type is visible everywhere.
class __attribute__((visibility("default"))) DeviceOutOfMemory : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace mft
