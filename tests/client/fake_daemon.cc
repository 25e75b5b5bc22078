// SPDX-License-Identifier: Apache-2.0
#include "tests/client/fake_daemon.h"

#include <chrono>

#include <grpcpp/server_builder.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace mft::testing {

using std::chrono::milliseconds;

grpc::Status DaemonError(grpc::StatusCode code,
                         const std::string& reason,
                         const std::string& message) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  info.set_domain("mftd.dev");
  info.set_reason(reason);
  details.add_details()->PackFrom(info);
  return {code, message, details.SerializeAsString()};
}

v1::JobEvent StepEvent(int64_t step, int attempt) {
  v1::JobEvent event;
  event.set_attempt(attempt);
  event.mutable_time()->set_seconds(1'716'588'192 + step);
  event.mutable_step()->set_step(step);
  event.mutable_step()->set_max_steps(100);
  event.mutable_step()->set_loss(0.5);
  return event;
}

v1::JobEvent StateEvent(v1::JobState state, const std::string& reason, const std::string& message) {
  v1::JobEvent event;
  event.mutable_time()->set_seconds(1'716'588'192);
  event.mutable_state_changed()->set_to(state);
  event.mutable_state_changed()->set_reason(reason);
  event.mutable_state_changed()->set_message(message);
  return event;
}

class FakeDaemon::Jobs final : public v1::JobService::Service {
 public:
  grpc::Status WatchJob(grpc::ServerContext* context,
                        const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    std::unique_lock lock(mutex);
    requests.push_back(*request);
    if (!script.watch_error.ok() && script.watch_errors != 0) {
      --script.watch_errors;
      return script.watch_error;
    }
    if (request->job_id() != script.job.id()) {
      return NoSuchJob(request->job_id());
    }
    const int number = static_cast<int>(requests.size());
    auto at = static_cast<size_t>(request->after_sequence());
    at -= script.repeat_last && at > 0 ? 1 : 0;
    for (int sent = 0;; ++at, ++sent) {
      if (script.break_after(number) == sent) {
        return {grpc::StatusCode::UNAVAILABLE, "broken by the script"};
      }
      while (at >= script.events.size()) {
        if (script.end_early || (at > 0 && IsFinal(script.events[at - 1]))) {
          return grpc::Status::OK;
        }
        changed.wait_for(lock, milliseconds(5));
        if (context->IsCancelled() || stopping) {
          return {grpc::StatusCode::UNAVAILABLE, "stopping"};
        }
      }
      if (script.leave_out(number, static_cast<int64_t>(at) + 1)) {
        continue;
      }
      if (!Write(at, writer)) {
        return {grpc::StatusCode::CANCELLED, "the client went away"};
      }
    }
  }
  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  Script script;
  bool stopping = false;
  std::vector<v1::WatchJobRequest> requests;

 private:
  static bool IsFinal(const v1::JobEvent& event) {
    return event.has_state_changed() && event.state_changed().to() >= v1::SUCCEEDED;
  }
  static grpc::Status NoSuchJob(const std::string& id) {
    return DaemonError(grpc::StatusCode::NOT_FOUND, "JOB_NOT_FOUND", "there is no job " + id);
  }
  bool Write(size_t at, grpc::ServerWriter<v1::JobEvent>* writer) {
    if (script.bookmarks) {
      v1::JobEvent bookmark;
      bookmark.set_epoch(script.epoch);
      bookmark.mutable_bookmark()->set_sequence(static_cast<int64_t>(at));
      writer->Write(bookmark);
    }
    const auto sequence = static_cast<int64_t>(at) + 1;
    v1::JobEvent event = script.events[at];
    event.set_sequence(sequence);
    event.set_epoch(script.epoch);
    event.set_job_id(script.job.id());
    return writer->Write(event);
  }
};

FakeDaemon::FakeDaemon() : jobs_(std::make_unique<Jobs>()) {
  jobs_->script.job.set_id("jaaaaaaaaaaa");
  Start();
}

FakeDaemon::~FakeDaemon() {
  Kill();
}

void FakeDaemon::Start() {
  {
    const std::lock_guard lock(jobs_->mutex);
    jobs_->stopping = false;
  }
  grpc::ServerBuilder builder;
  builder.AddListeningPort(endpoint(), grpc::InsecureServerCredentials());
  builder.RegisterService(jobs_.get());
  server_ = builder.BuildAndStart();
  MFT_CHECK(server_ != nullptr, endpoint());
}

void FakeDaemon::Kill() {
  if (server_ == nullptr) {
    return;
  }
  Edit([this](Script&) { jobs_->stopping = true; });
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_.reset();
}

void FakeDaemon::Edit(const std::function<void(Script&)>& change) {
  {
    const std::lock_guard lock(jobs_->mutex);
    change(jobs_->script);
  }
  jobs_->changed.notify_all();
}

int FakeDaemon::num_streams() const {
  return static_cast<int>(watch_requests().size());
}

std::vector<v1::WatchJobRequest> FakeDaemon::watch_requests() const {
  const std::lock_guard lock(jobs_->mutex);
  return jobs_->requests;
}

}  // namespace mft::testing
