// SPDX-License-Identifier: Apache-2.0
// Time is passed in, so that everything that waits can be tested with a fake clock.
#pragma once

#include <cstdint>
#include <string>

namespace mft {

// Threads: implementations are safe from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t WallMicros() const = 0;      // since the Unix epoch, UTC
  virtual int64_t BoottimeMicros() const = 0;  // CLOCK_BOOTTIME: monotonic, counts suspend
};

// The machine's clocks.
const Clock& SystemClock();

std::string FormatUtc(int64_t wall_micros);  // "2026-11-23T07:27:39Z"
std::string FormatUtcMicros(
    int64_t wall_micros);  // "2026-11-23T07:27:39.123456" (no zone, as mistral-finetune)
std::string BootId();      // /proc/sys/kernel/random/boot_id, "" where there is none

}  // namespace mft
