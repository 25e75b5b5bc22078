// SPDX-License-Identifier: Apache-2.0
// Liveness of a rank: one 64-byte record of fixed place, written over and over (durability.md,
// "Journals").
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/files.h"

namespace mft {

struct Heartbeat {
  int64_t step = 0;
  int64_t wall_micros = 0;
  int64_t memory_bytes = 0;
};

// Errors are ignored: a full disk must not stop training, and readers see an old record.
// Threads: one at a time.
class HeartbeatWriter {
 public:
  explicit HeartbeatWriter(const std::string& path);  // preallocates the file
  void Write(const Heartbeat& beat);

 private:
  UniqueFd fd_;
};

// Nothing where the file is missing, short, torn or of another version.
std::optional<Heartbeat> ReadHeartbeat(const std::string& path);

}  // namespace mft
