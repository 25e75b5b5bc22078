// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "mft/v1/job.pb.h"

namespace mft::client {

// Events as the lines of `mftctl logs`: mistral-finetune's train and eval lines, messages,
// checkpoints, states. Remembers when the attempt began, for the elapsed time.
class EventFormatter {
 public:
  // The line without its end; "" for events that say nothing to a reader of logs.
  std::string Line(const v1::JobEvent& event);

 private:
  int64_t start_micros_ = 0;
};

// "2026-11-23T07:27:39Z" of a timestamp; "" of none.
std::string FormatTime(const google::protobuf::Timestamp& time, bool present);

}  // namespace mft::client
