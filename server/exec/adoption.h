// SPDX-License-Identifier: Apache-2.0
// Finds the runner of an attempt that an earlier daemon started.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/processes.h"

namespace mft::server {

// The process `pid` if it still is the one that started at `start_ticks` and belongs to the
// attempt.
std::optional<AttemptProcess> OpenRunner(const std::string& attempt_id,
                                         int pid,
                                         int64_t start_ticks);

// Where the daemon died before it noted the pid: the process of the attempt whose parent does not
// belong to it. Meant for an attempt whose lock is held; a runner between fork and exec is not
// found yet, so ask again.
std::optional<AttemptProcess> FindRunner(const std::string& attempt_id);

}  // namespace mft::server
