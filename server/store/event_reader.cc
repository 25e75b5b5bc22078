// SPDX-License-Identifier: Apache-2.0
#include "server/store/event_reader.h"

#include "server/store/sqlite.h"

namespace mft::server {

EventReader::EventReader(std::unique_ptr<Database> database) : database_(std::move(database)) {}
EventReader::~EventReader() = default;

Result<std::unique_ptr<EventReader>> EventReader::Open(const std::string& database_path) {
  MFT_ASSIGN_OR_RETURN(std::unique_ptr<Database> database,
                       Database::Open(database_path, Database::Mode::kReadOnly));
  return std::unique_ptr<EventReader>(new EventReader(std::move(database)));
}

Result<std::vector<StoredEvent>> EventReader::Read(const std::string& job_id,
                                                   int64_t after_sequence,
                                                   int max_events,
                                                   size_t max_bytes) {
  std::vector<StoredEvent> events;
  size_t bytes = 0;
  MFT_RETURN_IF_ERROR(database_->Query(
      "SELECT seq, attempt, at, type, body FROM events WHERE job_id = ? AND seq > ? ORDER BY seq "
      "LIMIT ?",
      [&](const Row& row) {
        if (bytes >= max_bytes) {
          return;  // the rest of at most max_events small rows is skipped, not kept
        }
        events.push_back(StoredEvent{.job_id = job_id,
                                     .sequence = row.Int(0),
                                     .attempt = static_cast<int>(row.Int(1)),
                                     .at_micros = row.Int(2),
                                     .type = row.Text(3),
                                     .body = row.Text(4)});
        bytes += events.back().body.size();
      },
      job_id,
      after_sequence,
      max_events));
  return events;
}

}  // namespace mft::server
