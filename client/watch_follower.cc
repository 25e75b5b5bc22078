// SPDX-License-Identifier: Apache-2.0
#include "client/watch_follower.h"

#include <thread>

#include "common/base/strings.h"

namespace mft::client {

bool IsTerminal(const v1::JobEvent& event) {
  if (!event.has_state_changed()) {
    return false;
  }
  const v1::JobState to = event.state_changed().to();
  return to == v1::SUCCEEDED || to == v1::FAILED || to == v1::CANCELLED;
}

Result<WatchFollower::StreamEnd> WatchFollower::Stream(const OnEvent& on_event) {
  v1::WatchJobRequest request;
  request.set_job_id(job_id_);
  request.set_after_sequence(seen_);
  request.set_epoch(epoch_);
  grpc::ClientContext context;
  const auto reader = connection_.jobs().WatchJob(&context, request);
  v1::JobEvent event;
  bool terminal = false;
  progressed_ = false;
  while (reader->Read(&event)) {
    progressed_ = true;
    epoch_ = event.epoch();
    if (event.has_bookmark() || event.sequence() <= seen_) {
      continue;
    }
    if (event.sequence() != seen_ + 1) {
      context.TryCancel();
      static_cast<void>(reader->Finish().ok());  // cancelled, by us
      return StreamEnd::kGap;
    }
    on_event(event);
    gaps_ = 0;
    seen_ = event.sequence();
    terminal = terminal || IsTerminal(event);
    if (options_.until_sequence > 0 && seen_ >= options_.until_sequence) {
      context.TryCancel();
      static_cast<void>(reader->Finish().ok());  // cancelled, by us
      return StreamEnd::kUntil;
    }
  }
  const grpc::Status status = reader->Finish();
  if (terminal) {
    return StreamEnd::kTerminal;
  }
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return StreamEnd::kOkTooEarly;
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:  // or one that has too much to do
      return StreamEnd::kRetry;                 // what a connection that breaks looks like
    default:
      return connection_.Convert(status);
  }
}

Result<FollowEnd> WatchFollower::Run(const OnEvent& on_event, std::string& why) {
  auto last_contact = std::chrono::steady_clock::now();
  while (true) {
    MFT_ASSIGN_OR_RETURN(const StreamEnd end, Stream(on_event));
    switch (end) {
      case StreamEnd::kTerminal:
        return FollowEnd::kTerminal;
      case StreamEnd::kUntil:
        return FollowEnd::kUntil;
      case StreamEnd::kOkTooEarly:
        // Nothing after `seen_` and the job is over: the caller began behind the terminal event.
        if (!progressed_ && options_.after_sequence > 0) {
          return FollowEnd::kTerminal;
        }
        why = "the event stream ended before the job did";
        return FollowEnd::kLost;
      case StreamEnd::kGap:
        if (++gaps_ == kMaxGaps) {
          why = StrCat("event ", seen_ + 1, " is missing in the daemon's stream");
          return FollowEnd::kLost;
        }
        break;
      case StreamEnd::kRetry:
        break;
    }
    const auto now = std::chrono::steady_clock::now();
    last_contact = progressed_ ? now : last_contact;
    if (now - last_contact > options_.give_up) {
      why = StrCat("no mftd at ",
                   connection_.endpoint(),
                   " for ",
                   FormatDuration(std::chrono::duration<double>(now - last_contact).count()));
      return FollowEnd::kLost;
    }
    std::this_thread::sleep_for(options_.retry);
  }
}

}  // namespace mft::client
