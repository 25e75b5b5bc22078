// SPDX-License-Identifier: Apache-2.0
// Event history, read beside the control thread on a read-only connection.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace mft::server {

// A row of the event table. `body` is a serialized mft.v1.JobEvent of which only the oneof is set
// (server/events/job_event.h makes it whole); `type` is the oneof's field name, e.g. "step".
struct StoredEvent {
  std::string job_id;
  int64_t sequence = 0;  // from 1, without gaps, per job
  int attempt = 0;       // 0: before the first training attempt
  int64_t at_micros = 0;
  std::string type;
  std::string body;
};

class Database;

// Threads: one at a time; blocks on the disk, so never on a gRPC callback thread or the control
// thread. Every Read is a read transaction of its own: no long reader keeps the WAL from being
// checkpointed.
class EventReader {
 public:
  // Opens <state>/mftd.db read-only. The database exists once ControlLoop::Create has returned.
  static Result<std::unique_ptr<EventReader>> Open(const std::string& database_path);
  ~EventReader();
  EventReader(const EventReader&) = delete;
  EventReader& operator=(const EventReader&) = delete;

  // Events of a job above `after_sequence` in order, at most `max_events` and about `max_bytes` of
  // bodies (at least one if there is any). Step events of a compacted job are missing: see
  // Job::compacted_sequence.
  Result<std::vector<StoredEvent>> Read(const std::string& job_id,
                                        int64_t after_sequence,
                                        int max_events,
                                        size_t max_bytes = size_t{1} << 20);

 private:
  explicit EventReader(std::unique_ptr<Database> database);
  std::unique_ptr<Database> database_;
};

}  // namespace mft::server
