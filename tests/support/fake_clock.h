// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include "common/base/clock.h"

namespace mft::testing {

// Stands still until it is advanced. Threads: safe from any thread.
class FakeClock final : public Clock {
 public:
  int64_t WallMicros() const override { return 1'700'000'000'000'000 + elapsed_; }
  int64_t BoottimeMicros() const override { return 1'000'000'000 + elapsed_; }
  void Advance(int64_t micros) { elapsed_ += micros; }

 private:
  std::atomic<int64_t> elapsed_{0};
};

}  // namespace mft::testing
