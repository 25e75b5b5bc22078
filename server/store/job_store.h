// SPDX-License-Identifier: Apache-2.0
// The daemon's memory: jobs, attempts, leases, events, journal offsets and requests in one SQLite
// file.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "server/jobs/job.h"
#include "server/store/event_reader.h"
#include "server/store/sqlite.h"

namespace mft::server {

struct JournalOffset {
  std::string attempt_id;
  std::string file;    // "runner.jsonl", "rank-0.jsonl"
  int64_t offset = 0;  // bytes read
  int64_t seq = 0;     // of the last record read
};

struct StoredRequest {
  std::string request_id;
  std::string hash;
  std::string job_id;
  int64_t at_micros = 0;
};

// Everything that changes together: committed whole or not at all.
struct StoreBatch {
  std::vector<Job> jobs;  // inserted or replaced
  std::vector<Attempt>
      attempts;  // inserted or replaced; an ended one (ended_micros != 0) gives its leases back
  std::vector<StoredEvent> events;
  std::vector<JournalOffset> offsets;
  std::vector<StoredRequest> requests;
  std::vector<std::string>
      compact_steps;  // jobs whose step events go; their compacted_sequence is set
  bool empty() const {
    return jobs.empty() && attempts.empty() && events.empty() && offsets.empty() &&
           requests.empty() && compact_steps.empty();
  }
};

// What a restarted daemon begins with. Jobs come without `file`: it is in job.json.
struct StoredState {
  int64_t epoch = 0;
  std::vector<Job> jobs;
  std::vector<Attempt> open_attempts;  // not ended, with their leases
  std::vector<JournalOffset> offsets;  // of the open attempts
  std::vector<StoredRequest> requests;
};

// The only read-write connection. Threads: the control thread's.
class JobStore {
 public:
  // Creates or migrates <state>/mftd.db; `new_epoch` is the epoch of a database that is new.
  static Result<std::unique_ptr<JobStore>> Open(const std::string& path, int64_t new_epoch);
  // The same over an open read-write connection.
  static Result<std::unique_ptr<JobStore>> Create(std::unique_ptr<Database> database,
                                                  int64_t new_epoch);

  Result<StoredState> Load();
  // Durable on return. RESOURCE_EXHAUSTED (STATE_DISK_FULL) and UNAVAILABLE (STATE_BUSY) leave the
  // database as it was and may be tried again; after any other failure nobody knows what is on
  // disk, and the process must end.
  Status Commit(const StoreBatch& batch);
  // A small durable write: ok once the disk takes writes again.
  Status Probe();
  // Forgets requests older than `before_micros`.
  Status DeleteRequestsBefore(int64_t before_micros);
  // 0: the job has no step events.
  Result<int64_t> LastStepSequence(const std::string& job_id);

 private:
  explicit JobStore(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  Status Write(const StoreBatch& batch);
  Status WriteJob(const Job& job);
  Status WriteAttempt(const Attempt& attempt);

  std::unique_ptr<Database> database_;
};

// True for failures after which the process has to end.
bool IsFatalStoreError(const Status& status);

}  // namespace mft::server
