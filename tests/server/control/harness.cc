// SPDX-License-Identifier: Apache-2.0
#include "tests/server/control/harness.h"

#include <thread>

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include "common/base/files.h"
#include "common/base/processes.h"
#include "common/base/strings.h"
#include "server/control/control_loop.h"

namespace mft::server::testing {

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

JobSpec MakeSpec(const std::string& run_dir, int64_t steps, Labels labels) {
  JobSpec spec;
  spec.model_id_or_path = "/model";
  spec.data.instruct_data = "/data.jsonl";
  spec.run_dir = run_dir;
  spec.max_steps = steps;
  spec.mftd.name = "test";
  spec.mftd.device = "cpu";
  spec.mftd.threads = 1;
  spec.mftd.labels = std::move(labels);
  return spec;
}

std::vector<v1::JobEvent> ReadEvents(const std::string& database_path, const std::string& job_id) {
  const auto reader = EventReader::Open(database_path).value();
  std::vector<v1::JobEvent> events;
  while (true) {
    const auto after = static_cast<int64_t>(events.size());
    const std::vector<StoredEvent> page = reader->Read(job_id, after, 500).value();
    if (page.empty()) {
      return events;
    }
    for (const StoredEvent& stored : page) {
      events.push_back(ToJobEvent(stored, 0).value());
      MFT_CHECK(stored.sequence == static_cast<int64_t>(events.size()),
                StrCat("event ", stored.sequence, " follows event ", events.size() - 1));
    }
  }
}

std::vector<std::string> States(const std::vector<v1::JobEvent>& events) {
  std::vector<std::string> states;
  for (const v1::JobEvent& event : events) {
    if (event.has_state_changed()) {
      states.push_back(v1::JobState_Name(event.state_changed().to()));
    }
  }
  return states;
}

std::vector<int64_t> Steps(const std::vector<v1::JobEvent>& events) {
  std::vector<int64_t> steps;
  for (const v1::JobEvent& event : events) {
    if (event.has_step()) {
      steps.push_back(event.step().step());
    }
  }
  return steps;
}

Harness::Harness() {
  spdlog::set_level(spdlog::level::critical);
  options_.state_dir = temp_.File("state");
  options_.program_dir = MFT_SCRIPTED_DIR;
  options_.cores = 4;
  options_.tick_ms = 5;
  options_.retry_delay_ms = 20;
}

// Attempts outlive a loop by design; a test must not leave them behind.
Harness::~Harness() {
  if (!loop_) {
    Start();
  }
  const SnapshotPtr snapshot = loop_->snapshot();
  for (const auto& [id, view] : snapshot->jobs) {
    if (!IsFinal(view->job.state)) {
      static_cast<void>(Cancel(id, true));
      EXPECT_TRUE(WaitFor(id, JobState::kCancelled)) << id;
    }
  }
}

void Harness::Start() {
  loop_.reset();
  Result<std::unique_ptr<ControlLoop>> loop = ControlLoop::Create(options_);
  MFT_CHECK(loop.ok(), loop.status().ToString());
  loop_ = std::move(loop).value();
  loop_->Start();
}

Result<JobViewPtr> Harness::Submit(SubmitRequest request) {
  auto answer = std::make_shared<std::promise<Result<JobViewPtr>>>();
  std::future<Result<JobViewPtr>> result = answer->get_future();
  loop_->Submit(std::move(request),
                [answer](Result<JobViewPtr> view) { answer->set_value(std::move(view)); });
  return result.get();
}

std::string Harness::Submit(const std::string& run_dir, int64_t steps, Labels labels) {
  SubmitRequest request;
  request.spec = MakeSpec(run_dir, steps, std::move(labels));
  const Result<JobViewPtr> view = Submit(std::move(request));
  MFT_CHECK(view.ok(), view.status().ToString());
  return (*view)->job.id;
}

Result<JobViewPtr> Harness::Cancel(const std::string& job_id, bool now) {
  auto answer = std::make_shared<std::promise<Result<JobViewPtr>>>();
  std::future<Result<JobViewPtr>> result = answer->get_future();
  loop_->Cancel({.job_id = job_id, .now = now},
                [answer](Result<JobViewPtr> view) { answer->set_value(std::move(view)); });
  return result.get();
}

bool Harness::WaitFor(const std::string& job_id, JobState state) {
  return Eventually([&] { return View(job_id)->job.state == state; });
}

}  // namespace mft::server::testing
