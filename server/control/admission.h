// SPDX-License-Identifier: Apache-2.0
// The disk work of a submit, on a thread of its own: run_dir may lie on a slow or hanging file
// system, and the control thread waits for nobody.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "common/base/status.h"
#include "common/config/job_file.h"
#include "server/control/run_dir.h"

namespace mft::server {

struct AdmissionTask {
  std::string job_id;
  std::string job_dir;
  JobFile file;
  RunDirClaim claim;
  bool check_only = false;  // validate_only
  bool undo = false;        // take back what an earlier task made
};

// Threads: Push from the control thread; `done` is called on the admission thread.
class Admission {
 public:
  using Done = std::function<void(const std::string& job_id, Status status)>;
  explicit Admission(Done done) : done_(std::move(done)) {}
  ~Admission() { Stop(); }
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  void Start();
  void Push(AdmissionTask task);
  void Stop();  // finishes what is queued; idempotent

 private:
  void Run();

  const Done done_;
  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<AdmissionTask> tasks_;
  bool stopping_ = false;
};

}  // namespace mft::server
