// SPDX-License-Identifier: Apache-2.0
// Which signal an attempt gets next. Pure; the times are CLOCK_BOOTTIME.
#pragma once

#include <cstdint>

namespace mft::server {

enum class StopAction {
  kNone,
  kTerminate,  // SIGTERM to the runner: checkpoint, then stop
  kKill,       // SIGKILL to every process of the attempt
};

struct StopState {
  bool stop_wanted = false;       // an intent to cancel or pause is committed
  bool kill_wanted = false;       // ... without a checkpoint
  int64_t terminated_micros = 0;  // when SIGTERM was sent; 0: not yet
  int64_t started_micros = 0;     // when the attempt began
  int64_t grace_ms = 0;           // the runner's own patience with its ranks
  int64_t time_limit_ms = 0;      // 0: none
  int64_t margin_ms = 0;          // how much longer the daemon waits than the runner
};

// The runner keeps grace period and time limit itself and writes the result. The daemon kills only
// a runner that takes `margin_ms` longer: the witness of a kill must survive it.
StopAction NextStopAction(const StopState& state, int64_t now_micros);

}  // namespace mft::server
