// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/watch_stream.h"

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>

#include "common/base/strings.h"
#include "server/events/job_event.h"
#include "server/rpc/errors.h"
#include "server/rpc/server_stream.h"

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

class WatchStream final : public ServerStream<v1::JobEvent> {
 public:
  WatchStream(const ServiceContext& context, const v1::WatchJobRequest& request)
      : ServerStream(context), job_id_(request.job_id()), delivered_(request.after_sequence()) {}

  void Start(const v1::WatchJobRequest& request) {
    Status status = Open();
    const SnapshotPtr snapshot = context_.loop.snapshot();
    const JobViewPtr view = snapshot->Find(job_id_);
    if (status.ok()) {
      status = CheckStart(*snapshot, view.get(), request);
    }
    if (!status.ok()) {
      RequestFinish(ToGrpcStatus(status, {{"job_id", job_id_}}));
      return;
    }
    epoch_ = snapshot->epoch;
    subscription_ =
        context_.loop.fan_out().Subscribe(job_id_, [weak = std::weak_ptr(Self())](int64_t, bool) {
          if (const auto self = weak.lock()) {
            self->PostPump();
          }
        });
    context_.ticker.Add([weak = std::weak_ptr(Self())] {
      const auto self = weak.lock();
      return self != nullptr && self->Tick();
    });
    PostPump();
  }

 private:
  void Written() override { PostPump(); }
  void Closed() override { subscription_ = {}; }

  std::shared_ptr<WatchStream> Self() {
    return std::static_pointer_cast<WatchStream>(shared_from_this());
  }

  // Pumps on the reader's one thread: it may read the database. Wakes that come meanwhile are one.
  void PostPump() {
    if (!Ending() && !pump_posted_.exchange(true)) {
      PostOrFinish(context_.reader_tasks, [self = Self()] { self->Pump(); });
    }
  }

  void Pump() {
    pump_posted_ = false;
    if (!Idle()) {
      return;
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
    WriteCurrent();
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

  void WriteCurrent() {
    last_write_ = steady_clock::now();
    Write(current_.get());
  }

  bool Tick() {
    if (Ending()) {
      return false;
    }
    if (!Idle() || pump_posted_ || steady_clock::now() - last_write_.load() < kQuiet) {
      return true;
    }
    return context_.reader_tasks.Post([self = Self()] { self->Bookmark(); });
  }

  void Bookmark() {
    if (!Idle()) {
      return;
    }
    v1::JobEvent event;
    event.set_job_id(job_id_);
    event.set_epoch(epoch_);
    event.mutable_bookmark()->set_sequence(delivered_);
    current_ = std::make_shared<const v1::JobEvent>(std::move(event));
    WriteCurrent();
  }

  const std::string job_id_;
  int64_t epoch_ = 0;
  FanOut::Subscription subscription_;
  std::atomic<bool> pump_posted_ = false;
  std::atomic<steady_clock::time_point> last_write_ = steady_clock::now();

  // The reader thread's.
  int64_t delivered_ = 0;
  bool terminal_delivered_ = false;
  std::deque<EventPtr> pending_;
  EventPtr current_;
};
}  // namespace

grpc::ServerWriteReactor<v1::JobEvent>* StartWatch(const ServiceContext& context,
                                                   const v1::WatchJobRequest& request) {
  const auto stream = std::make_shared<WatchStream>(context, request);
  stream->Start(request);
  return stream.get();
}

}  // namespace mft::server
