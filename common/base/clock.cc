// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include <array>
#include <cstdio>
#include <ctime>
#include <fstream>

namespace mft {

namespace {
int64_t Micros(clockid_t id) {
  timespec now{};
  clock_gettime(id, &now);
  return int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
}

class RealClock final : public Clock {
 public:
  int64_t WallMicros() const override { return Micros(CLOCK_REALTIME); }
  int64_t BoottimeMicros() const override { return Micros(CLOCK_BOOTTIME); }
};

std::string Format(int64_t wall_micros, const char* suffix_format) {
  const std::time_t seconds = wall_micros / 1'000'000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 64> text{};
  const size_t used = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text.data() + used,
                text.size() - used,
                suffix_format,
                static_cast<int>(wall_micros % 1'000'000));
  return text.data();
}
}  // namespace

const Clock& SystemClock() {
  static const RealClock clock;
  return clock;
}

std::string FormatUtc(int64_t wall_micros) {
  return Format(wall_micros - wall_micros % 1'000'000, "Z");
}

std::string FormatUtcMicros(int64_t wall_micros) {
  return Format(wall_micros, ".%06d");
}

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

}  // namespace mft
