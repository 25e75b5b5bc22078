// SPDX-License-Identifier: Apache-2.0
// What makes a process a runner, and what wakes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft::runner {

// Subreaper, and close-on-exec of everything that was inherited but 0 to 2.
void AdoptDescendants();

// That, a session of its own, and the OOM score.
void BecomeRunner();

// Checks that `lock_fd` holds the lock on `path`, or takes it where it is -1.
Result<UniqueFd> HoldLock(const std::string& path, int lock_fd);

// Blocks SIGTERM, SIGUSR1, SIGINT and SIGCHLD and waits for them, or for a time.
class Wakeup {
 public:
  Status Init();
  // Waits until a signal comes or CLOCK_BOOTTIME reaches `deadline_micros` (also across a suspend
  // of the machine), or `fd` can be read or has ended (-1: none). Returns the signals, in order.
  Result<std::vector<int>> Wait(std::optional<int64_t> deadline_micros, int fd = -1);

 private:
  UniqueFd signals_;
  UniqueFd timer_;
};

}  // namespace mft::runner
