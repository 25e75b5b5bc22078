// SPDX-License-Identifier: Apache-2.0
// What a rank writes to stdout and stderr.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"

namespace mft::runner {

// What is kept of each log, and how often that is looked at.
inline constexpr int64_t kLogBytesKept = int64_t{256} << 20;
inline constexpr int64_t kLogCheckMicros = 10'000'000;

// The last line with something in it, for the message about a rank that left no other word; "" if
// there is none.
std::string LastLogLine(const std::string& path);

// Frees the disk space of everything but the last `keep_bytes` once the file takes a quarter more
// than that; sizes and offsets stay. A file system that cannot do it is an error to log.
Status LimitLog(const std::string& path, int64_t keep_bytes);

}  // namespace mft::runner
