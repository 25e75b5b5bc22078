// SPDX-License-Identifier: Apache-2.0
#include "server/exec/stop_ladder.h"

namespace mft::server {

StopAction NextStopAction(const StopState& state, int64_t now_micros) {
  constexpr int64_t kMicrosPerMilli = 1'000;
  if (state.kill_wanted) {
    return StopAction::kKill;
  }
  const int64_t patience_micros = (state.grace_ms + state.margin_ms) * kMicrosPerMilli;
  if (state.terminated_micros != 0 && now_micros >= state.terminated_micros + patience_micros) {
    return StopAction::kKill;
  }
  const int64_t limit_micros = state.time_limit_ms * kMicrosPerMilli;
  if (limit_micros > 0 && now_micros >= state.started_micros + limit_micros + patience_micros) {
    return StopAction::kKill;
  }
  return state.stop_wanted && state.terminated_micros == 0 ? StopAction::kTerminate
                                                           : StopAction::kNone;
}

}  // namespace mft::server
