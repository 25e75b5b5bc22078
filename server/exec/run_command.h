// SPDX-License-Identifier: Apache-2.0
// Runs a program to its end and hears what it says: no shell, a deadline, bounded output.
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace mft::server {

struct CommandOutput {
  int exit_code = -1;  // 128 + N: ended by signal N
  std::string out;
  std::string err;
};

// `arguments[0]` is the program, looked for in PATH unless it holds a slash. It gets the daemon's
// environment without what is meant for the daemon alone, an empty stdin, and no other descriptor.
// Blocks. DEADLINE_EXCEEDED: it did not end in time and was killed, so nobody knows what it did;
// the same about two seconds after `stop` is requested. RESOURCE_EXHAUSTED: it said more than 16
// MiB.
Result<CommandOutput> RunCommand(std::vector<std::string> arguments,
                                 int64_t deadline_ms,
                                 const std::stop_token& stop);

}  // namespace mft::server
