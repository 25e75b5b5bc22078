// SPDX-License-Identifier: Apache-2.0
// A control loop over scripted runners, and what tests want to ask of it.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/control/control_loop.h"
#include "server/events/job_event.h"
#include "tests/support/temp_dir.h"

namespace mft::server::testing {

using Labels = std::map<std::string, std::string>;

// Polls until `condition` holds; false after 30 s.
bool Eventually(const std::function<bool()>& condition);

// A job of `steps` steps for the scripted runner.
JobSpec MakeSpec(const std::string& run_dir, int64_t steps, Labels labels = {});

// Every event of a job from the database, CHECKing that the numbers run from 1 without gaps.
std::vector<v1::JobEvent> ReadEvents(const std::string& database_path, const std::string& job_id);
// The states that the events tell of, in order.
std::vector<std::string> States(const std::vector<v1::JobEvent>& events);
// The step numbers of the step events, in order.
std::vector<int64_t> Steps(const std::vector<v1::JobEvent>& events);

class Harness {
 public:
  Harness();
  ~Harness();

  // (Re)starts the loop over the same state.
  void Start();
  void Stop() { loop_.reset(); }
  ControlLoop& loop() { return *loop_; }
  ControlOptions& options() { return options_; }  // before Start
  std::string RunDir(const std::string& name) const { return temp_.File("runs/" + name); }

  Result<JobViewPtr> Submit(SubmitRequest request);
  // Submits and returns the id.
  std::string Submit(const std::string& run_dir, int64_t steps, Labels labels = {});
  Result<JobViewPtr> Cancel(const std::string& job_id, bool now = false);
  JobViewPtr View(const std::string& job_id) { return loop_->snapshot()->Find(job_id); }
  bool WaitFor(const std::string& job_id, JobState state);
  std::vector<v1::JobEvent> Events(const std::string& job_id) {
    return ReadEvents(loop_->database_path(), job_id);
  }

 private:
  mft::testing::TempDir temp_;
  ControlOptions options_;
  std::unique_ptr<ControlLoop> loop_;
};

}  // namespace mft::server::testing
