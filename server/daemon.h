// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/base/status.h"
#include "common/config/server_config.h"

namespace mft::server {

// Fills in what depends on the user and the machine: state directory, socket, folders; makes paths
// absolute.
Status ResolveConfig(ServerConfig& config);

// Runs the daemon until SIGTERM or SIGINT, which must be blocked in every thread. Prints the
// `ready` line on stdout. Jobs go on when it returns.
Status RunDaemon(const ServerConfig& config);

}  // namespace mft::server
