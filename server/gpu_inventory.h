// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "server/control/commands.h"

namespace mft::server {

// The node's GPUs by NVML, which is loaded at run time: a node without the driver has none, and
// `why` says so. A GPU that a foreign process uses is not available. Blocks for milliseconds.
// Threads: one at a time.
std::vector<GpuInfo> ListGpus(std::string& why);

}  // namespace mft::server
