// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>

#include <grpcpp/support/server_callback.h>

#include "common/base/status.h"
#include "server/rpc/errors.h"
#include "server/rpc/services.h"

namespace mft::server {

// What every stream of responses needs: one write at a time, one Finish, never both, and a life
// until gRPC and all tasks have let go of it. Decides under the lock and calls gRPC outside it:
// only whoever has set `finished_` calls Finish, and never while a write is under way.
template <typename Response>
class ServerStream : public grpc::ServerWriteReactor<Response>,
                     public std::enable_shared_from_this<ServerStream<Response>> {
 public:
  explicit ServerStream(const ServiceContext& context) : context_(context) {}

  void OnWriteDone(bool ok) final {
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
    }
    if (!ok) {
      RequestFinish(grpc::Status(grpc::StatusCode::CANCELLED, "the client went away"));
    } else if (!MaybeFinish()) {
      Written();
    }
  }
  void OnCancel() final { RequestFinish(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled")); }
  void OnDone() final {
    context_.streams.Remove(key_);
    Closed();
    const auto dying = std::move(self_);
  }

 protected:
  // Keeps the stream alive until OnDone. UNAVAILABLE where the daemon is stopping.
  Status Open() {
    self_ = this->shared_from_this();
    key_ = context_.streams.Add(
        [self = self_](const grpc::Status& status) { self->RequestFinish(status); });
    return key_ == 0 ? Unavailable("the daemon is stopping") : Status::Ok();
  }

  // The first request counts; Finish follows when no write is under way.
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

  // `response` must live until Written(). Nothing is written once the end was requested.
  void Write(const Response* response) {
    {
      const std::lock_guard lock(mutex_);
      if (finish_requested_) {
        return;
      }
      writing_ = true;
    }
    this->StartWrite(response);
  }

  // Neither a write nor the end is under way.
  bool Idle() const {
    const std::lock_guard lock(mutex_);
    return !finish_requested_ && !writing_;
  }
  bool Ending() const {
    const std::lock_guard lock(mutex_);
    return finish_requested_;
  }

  // Runs `work` on a thread of `pool`, or ends the stream.
  template <typename Work>
  void PostOrFinish(TaskPool& pool, Work work) {
    if (!pool.Post(std::move(work))) {
      RequestFinish(
          grpc::Status(grpc::StatusCode::UNAVAILABLE, "the daemon is stopping or overloaded"));
    }
  }

  virtual void Written() = 0;  // a write is done and more may follow
  virtual void Closed() {}     // gRPC is done with the stream

  const ServiceContext context_;

 private:
  // Whether the stream is over.
  bool MaybeFinish() {
    {
      const std::lock_guard lock(mutex_);
      if (!finish_requested_ || finished_ || writing_) {
        return finish_requested_;
      }
      finished_ = true;
    }
    this->Finish(finish_status_);
    return true;
  }

  uint64_t key_ = 0;
  std::shared_ptr<ServerStream> self_;  // gRPC's reference, dropped in OnDone

  mutable std::mutex mutex_;  // guards what follows
  bool writing_ = false;
  bool finish_requested_ = false;
  bool finished_ = false;
  grpc::Status finish_status_;
};

}  // namespace mft::server
