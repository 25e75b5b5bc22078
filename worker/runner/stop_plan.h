// SPDX-License-Identifier: Apache-2.0
// When the ranks are asked to stop and when they are killed. Pure; times are CLOCK_BOOTTIME
// microseconds. Threads: one at a time.
#pragma once

#include <cstdint>
#include <optional>

namespace mft::runner {

enum class StopCause {
  kNone,
  kRequested,   // SIGTERM to the runner
  kTimeLimit,   // the attempt's time limit ran out
  kRankFailed,  // one rank failed: the others wait for it in vain
};

enum class StopAction {
  kNone,
  kTerminate,  // SIGTERM to every rank, once
  kKill,       // SIGKILL to every process of the attempt, again and again until none is left
};

// After the failure of a rank the others can hardly do anything useful any more.
inline constexpr int64_t kPeerPatienceMs = 5'000;

class StopPlan {
 public:
  // time_limit_ms 0: none. From SIGTERM to SIGKILL it is grace_ms.
  StopPlan(int64_t start_micros, int64_t grace_ms, int64_t time_limit_ms);

  // Repeats change nothing; the first cause counts, the earliest deadline too.
  void Request(int64_t now_micros);
  void RankFailed(int64_t now_micros);

  // What to do now.
  StopAction Next(int64_t now_micros);
  // When Next() may have something new to say, if nothing happens before.
  std::optional<int64_t> Deadline() const;

  StopCause cause() const { return cause_; }
  bool killed() const { return killed_; }

 private:
  void Begin(StopCause cause, int64_t kill_at_micros);

  int64_t grace_micros_;
  std::optional<int64_t> limit_at_micros_;
  StopCause cause_ = StopCause::kNone;
  std::optional<int64_t> kill_at_micros_;
  bool terminated_ = false;
  bool killed_ = false;
};

}  // namespace mft::runner
