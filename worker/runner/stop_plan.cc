// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/stop_plan.h"

#include <algorithm>

namespace mft::runner {

namespace {
constexpr int64_t kMicrosPerMilli = 1'000;
constexpr int64_t kKillAgainMicros = 100'000;
}  // namespace

StopPlan::StopPlan(int64_t start_micros, int64_t grace_ms, int64_t time_limit_ms)
    : grace_micros_(grace_ms * kMicrosPerMilli) {
  if (time_limit_ms > 0) {
    limit_at_micros_ = start_micros + time_limit_ms * kMicrosPerMilli;
  }
}

void StopPlan::Begin(StopCause cause, int64_t kill_at_micros) {
  cause_ = cause_ == StopCause::kNone ? cause : cause_;
  kill_at_micros_ = std::min(kill_at_micros_.value_or(kill_at_micros), kill_at_micros);
}

void StopPlan::Request(int64_t now_micros) {
  if (cause_ == StopCause::kNone) {
    Begin(StopCause::kRequested, now_micros + grace_micros_);
  }
}

void StopPlan::RankFailed(int64_t now_micros) {
  Begin(StopCause::kRankFailed,
        now_micros + std::min(grace_micros_, kPeerPatienceMs * kMicrosPerMilli));
}

StopAction StopPlan::Next(int64_t now_micros) {
  if (cause_ == StopCause::kNone && limit_at_micros_ && now_micros >= *limit_at_micros_) {
    Begin(StopCause::kTimeLimit, now_micros + grace_micros_);
  }
  if (cause_ == StopCause::kNone) {
    return StopAction::kNone;
  }
  if (!terminated_) {
    terminated_ = true;
    return StopAction::kTerminate;
  }
  if (now_micros < *kill_at_micros_) {
    return StopAction::kNone;
  }
  killed_ = true;
  kill_at_micros_ = now_micros + kKillAgainMicros;
  return StopAction::kKill;
}

std::optional<int64_t> StopPlan::Deadline() const {
  return cause_ == StopCause::kNone ? limit_at_micros_ : kill_at_micros_;
}

}  // namespace mft::runner
