// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/watch_stream.h"

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>

#include "common/base/strings.h"
#include "server/events/job_event.h"
#include "server/rpc/errors.h"

namespace mft::server {

namespace {
using std::chrono::steady_clock;

constexpr int kBatch = 64;
constexpr auto kQuiet = std::chrono::seconds(15);

Status CheckStart(const Snapshot& snapshot,
                  const JobView* view,
                  const v1::WatchJobRequest& request) {
  if (view == nullptr) {
    return JobNotFound(request.job_id());
  }
  if (request.epoch() != 0 && request.epoch() != snapshot.epoch) {
    return {Code::kOutOfRange,
            "EVENTS_REBUILT",
            "the job's history was rebuilt; watch again from the beginning"};
  }
  if (request.after_sequence() < 0 || request.after_sequence() > view->job.last_sequence) {
    return {Code::kOutOfRange,
            "EVENTS_REBUILT",
            StrCat("after_sequence ",
                   request.after_sequence(),
                   " is not in the job's history, which ends at ",
                   view->job.last_sequence)};
  }
  if (request.after_sequence() < view->job.compacted_sequence) {
    return {Code::kOutOfRange,
            "EVENTS_COMPACTED",
            StrCat("events up to ",
                   view->job.compacted_sequence,
                   " were compacted; watch after that sequence")};
  }
  return Status::Ok();
}

bool IsTerminal(const v1::JobEvent& event) {
  return event.has_state_changed() && IsFinal(static_cast<JobState>(event.state_changed().to()));
}

// Lives until OnDone and as long as a task, a wake or the registry still refers to it.
// Decides what to do under the lock and calls gRPC outside it. At most one write is under way; only
// whoever has set `finished_` calls Finish, and never while a write is under way.
class WatchStream final : public grpc::ServerWriteReactor<v1::JobEvent>,
                          public std::enable_shared_from_this<WatchStream> {
 public:
  WatchStream(const ServiceContext& context, const v1::WatchJobRequest& request)
      : context_(context), job_id_(request.job_id()), delivered_(request.after_sequence()) {}

  void Start(const v1::WatchJobRequest& request) {
    self_ = shared_from_this();
    key_ = context_.streams.Add(
        [self = shared_from_this()](const grpc::Status& status) { self->RequestFinish(status); });
    const SnapshotPtr snapshot = context_.loop.snapshot();
    const JobViewPtr view = snapshot->Find(job_id_);
    const Status status = key_ == 0 ? Unavailable("the daemon is stopping")
                                    : CheckStart(*snapshot, view.get(), request);
    if (!status.ok()) {
      RequestFinish(ToGrpcStatus(status, {{"job_id", job_id_}}));
      return;
    }
    epoch_ = snapshot->epoch;
    subscription_ =
        context_.loop.fan_out().Subscribe(job_id_, [weak = weak_from_this()](int64_t, bool) {
          if (const auto self = weak.lock()) {
            self->PostPump();
          }
        });
    context_.ticker.Add([weak = weak_from_this()] {
      const auto self = weak.lock();
      return self != nullptr && self->Tick();
    });
    PostPump();
  }

  void OnWriteDone(bool ok) override {
    bool pump = false;
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
      pump = ok && !finish_requested_;
      if (!ok && !finish_requested_) {
        finish_requested_ = true;
        finish_status_ = grpc::Status(grpc::StatusCode::CANCELLED, "the client went away");
      }
    }
    if (pump) {
      PostPump();
    } else {
      MaybeFinish();
    }
  }

  void OnCancel() override {
    RequestFinish(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled"));
  }

  void OnDone() override {
    context_.streams.Remove(key_);
    subscription_ = {};
    const auto dying = std::move(self_);
  }

 private:
  void RequestFinish(const grpc::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      if (!finish_requested_) {
        finish_requested_ = true;
        finish_status_ = status;
      }
    }
    MaybeFinish();
  }

  void MaybeFinish() {
    {
      const std::lock_guard lock(mutex_);
      if (!finish_requested_ || finished_ || writing_) {
        return;
      }
      finished_ = true;
    }
    Finish(finish_status_);
  }

  // Pumps on the reader's one thread: it may read the database. Wakes that come meanwhile are one.
  void PostPump() {
    {
      const std::lock_guard lock(mutex_);
      if (pump_posted_ || finish_requested_) {
        return;
      }
      pump_posted_ = true;
    }
    if (!context_.reader_tasks.Post([self = shared_from_this()] { self->Pump(); })) {
      RequestFinish(
          grpc::Status(grpc::StatusCode::UNAVAILABLE, "the daemon is stopping or overloaded"));
    }
  }

  void Pump() {
    {
      const std::lock_guard lock(mutex_);
      pump_posted_ = false;
      if (finish_requested_ || writing_) {
        return;
      }
    }
    if (pending_.empty()) {
      const Status status = Fetch();
      if (!status.ok()) {
        RequestFinish(ToGrpcStatus(status));
        return;
      }
    }
    if (pending_.empty()) {
      FinishIfOver();
      return;
    }
    current_ = pending_.front();
    pending_.pop_front();
    delivered_ = current_->sequence();
    terminal_delivered_ = IsTerminal(*current_);
    Write();
  }

  // Touches pending_ and delivered_, which only the reader's thread uses.
  Status Fetch() {
    const auto live = context_.loop.fan_out().Read(job_id_, delivered_, kBatch);
    if (live) {
      pending_.assign(live->begin(), live->end());
      return Status::Ok();
    }
    MFT_ASSIGN_OR_RETURN(const auto rows, context_.reader.Read(job_id_, delivered_, kBatch));
    for (const StoredEvent& row : rows) {
      MFT_ASSIGN_OR_RETURN(v1::JobEvent event, ToJobEvent(row, epoch_));
      pending_.push_back(std::make_shared<const v1::JobEvent>(std::move(event)));
    }
    return Status::Ok();
  }

  void FinishIfOver() {
    const JobViewPtr view = context_.loop.snapshot()->Find(job_id_);
    const bool over =
        view == nullptr || (IsFinal(view->job.state) && delivered_ >= view->job.last_sequence);
    if (terminal_delivered_ || over) {
      RequestFinish(grpc::Status::OK);
    }
  }

  void Write() {
    {
      const std::lock_guard lock(mutex_);
      if (finish_requested_) {
        return;
      }
      writing_ = true;
      last_write_ = steady_clock::now();
    }
    StartWrite(current_.get());
  }

  bool Tick() {
    {
      const std::lock_guard lock(mutex_);
      if (finish_requested_) {
        return false;
      }
      if (writing_ || pump_posted_ || steady_clock::now() - last_write_ < kQuiet) {
        return true;
      }
    }
    return context_.reader_tasks.Post([self = shared_from_this()] { self->Bookmark(); });
  }

  void Bookmark() {
    {
      const std::lock_guard lock(mutex_);
      if (writing_ || finish_requested_) {
        return;
      }
    }
    v1::JobEvent event;
    event.set_job_id(job_id_);
    event.set_epoch(epoch_);
    event.mutable_bookmark()->set_sequence(delivered_);
    current_ = std::make_shared<const v1::JobEvent>(std::move(event));
    Write();
  }

  const ServiceContext context_;
  const std::string job_id_;
  int64_t epoch_ = 0;
  uint64_t key_ = 0;
  FanOut::Subscription subscription_;
  std::shared_ptr<WatchStream> self_;  // gRPC's reference, dropped in OnDone

  // The reader thread's.
  int64_t delivered_ = 0;
  bool terminal_delivered_ = false;
  std::deque<EventPtr> pending_;
  EventPtr current_;

  std::mutex mutex_;  // guards what follows
  bool pump_posted_ = false;
  bool writing_ = false;
  bool finish_requested_ = false;
  bool finished_ = false;
  grpc::Status finish_status_;
  steady_clock::time_point last_write_ = steady_clock::now();
};
}  // namespace

grpc::ServerWriteReactor<v1::JobEvent>* StartWatch(const ServiceContext& context,
                                                   const v1::WatchJobRequest& request) {
  const auto stream = std::make_shared<WatchStream>(context, request);
  stream->Start(request);
  return stream.get();
}

}  // namespace mft::server
