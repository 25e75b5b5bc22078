// SPDX-License-Identifier: Apache-2.0
// A JobService in this process, on a unix socket, that plays a script of events. It can go away and
// come back like a daemon that was killed.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <grpcpp/server.h>

#include "common/base/status.h"
#include "mft/v1/job_service.grpc.pb.h"
#include "tests/support/temp_dir.h"

namespace mft::testing {

// An error as the daemon makes it, with ErrorInfo.
grpc::Status DaemonError(grpc::StatusCode code,
                         const std::string& reason,
                         const std::string& message);

v1::JobEvent StepEvent(int64_t step, int attempt = 1);
v1::JobEvent StateEvent(v1::JobState state,
                        const std::string& reason = "",
                        const std::string& message = "");

// What the fake answers; a test fills it in before the call or changes it under Edit.
struct Script {
  v1::Job job;                       // only its id
  std::vector<v1::JobEvent> events;  // sequence, job and epoch are filled in
  int64_t epoch = 7;
  // The stream number `n` (from 1) breaks with UNAVAILABLE after so many events; -1: never.
  std::function<int(int n)> break_after = [](int) { return -1; };
  // Whether stream `n` leaves out the event with this sequence, as no daemon should.
  std::function<bool(int n, int64_t sequence)> leave_out = [](int, int64_t) { return false; };
  bool repeat_last = false;  // each stream begins one event too early
  bool end_early = false;    // streams end OK after what there is
  bool bookmarks = false;    // one before every event
  grpc::Status watch_error;  // instead of a stream, ...
  int watch_errors = -1;     // ... of so many streams; -1: of each
};

// Threads: one test; the services run on gRPC's.
class FakeDaemon {
 public:
  FakeDaemon();
  ~FakeDaemon();

  void Start();
  void Kill();                                            // streams break; the socket stays
  void Edit(const std::function<void(Script&)>& change);  // and wakes streams
  std::string endpoint() const { return "unix:" + directory_.File("s"); }
  int num_streams() const;  // WatchJob calls so far
  std::vector<v1::WatchJobRequest> watch_requests() const;

 private:
  class Jobs;

  TempDir directory_;
  std::unique_ptr<Jobs> jobs_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace mft::testing
