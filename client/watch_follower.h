// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "client/connection.h"
#include "mft/v1/job.pb.h"

namespace mft::client {

struct FollowOptions {
  int64_t after_sequence = 0;
  int64_t until_sequence = 0;            // > 0: stop after it; 0: follow to the terminal event
  std::chrono::milliseconds retry{500};  // between attempts to reach a daemon that is away
  std::chrono::milliseconds give_up{300'000};  // without a daemon
};

enum class FollowEnd { kTerminal, kUntil, kLost };

// Follows a job's events across daemon restarts: each event once, in order, by its sequence. An
// event counts as seen when it arrived whole. Threads: one at a time; blocks.
class WatchFollower {
 public:
  using OnEvent = std::function<void(const v1::JobEvent&)>;

  WatchFollower(Connection& connection, std::string job_id, FollowOptions options)
      : connection_(connection),
        job_id_(std::move(job_id)),
        options_(options),
        seen_(options.after_sequence) {}

  // kLost with a message in `why`: no daemon for `give_up`, the stream ended without a terminal
  // event, or the daemon leaves out the same event again and again. Errors of the call itself
  // (NOT_FOUND, OUT_OF_RANGE, ...) are returned.
  Result<FollowEnd> Run(const OnEvent& on_event, std::string& why);
  int64_t seen() const { return seen_; }

 private:
  enum class StreamEnd { kTerminal, kUntil, kRetry, kGap, kOkTooEarly };
  static constexpr int kMaxGaps = 3;  // streams in a row that leave out the next event
  Result<StreamEnd> Stream(const OnEvent& on_event);

  Connection& connection_;
  std::string job_id_;
  FollowOptions options_;
  int64_t seen_;
  int64_t epoch_ = 0;
  int gaps_ = 0;
  bool progressed_ = false;  // an event or bookmark came in the last stream
};

// Whether the event ends the job.
bool IsTerminal(const v1::JobEvent& event);

}  // namespace mft::client
