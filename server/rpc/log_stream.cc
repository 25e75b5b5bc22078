// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/log_stream.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <mutex>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "server/rpc/errors.h"

namespace mft::server {

namespace {
constexpr size_t kChunkBytes = size_t{64} << 10;
constexpr int64_t kTailWindowBytes = int64_t{4} << 20;  // --tail looks no further back

// Offset of the last `lines` lines of a file of `size` bytes, at a line's begin.
Result<int64_t> TailOffset(int fd, int64_t size, int64_t lines, const std::string& path) {
  const int64_t begin = std::max<int64_t>(0, size - kTailWindowBytes);
  std::string window(static_cast<size_t>(size - begin), '\0');
  const ssize_t got = pread(fd, window.data(), window.size(), begin);
  if (got < 0) {
    return ErrnoStatus(errno, StrCat("reading ", path));
  }
  window.resize(static_cast<size_t>(got));
  size_t at =
      window.empty() ? 0 : window.size() - 1;  // a last newline ends a line, it does not begin one
  for (int64_t found = 0; found < lines && at > 0;) {
    const size_t newline = window.rfind('\n', at - 1);
    if (newline == std::string::npos) {
      return begin;
    }
    at = newline;
    if (++found == lines) {
      return begin + static_cast<int64_t>(newline) + 1;
    }
  }
  return begin;
}

// As WatchStream: decisions under the lock, gRPC outside it, file reads on a task thread.
class LogStream final : public grpc::ServerWriteReactor<v1::ReadLogsResponse>,
                        public std::enable_shared_from_this<LogStream> {
 public:
  LogStream(const ServiceContext& context, const v1::ReadLogsRequest& request)
      : context_(context), request_(request), offset_(request.offset()) {}

  void Start() {
    self_ = shared_from_this();
    key_ = context_.streams.Add(
        [self = shared_from_this()](const grpc::Status& status) { self->RequestFinish(status); });
    const Status status = key_ == 0 ? Unavailable("the daemon is stopping") : FindLog();
    if (!status.ok()) {
      RequestFinish(ToGrpcStatus(status, {{"job_id", request_.job_id()}}));
      return;
    }
    PostRead();
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok && !finish_requested_) {
        finish_requested_ = true;
        finish_status_ = grpc::Status(grpc::StatusCode::CANCELLED, "the client went away");
      }
    }
    MaybeFinish();
    PostRead();
  }

  void OnCancel() override {
    RequestFinish(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled"));
  }

  void OnDone() override {
    context_.streams.Remove(key_);
    const auto dying = std::move(self_);
  }

 private:
  Status FindLog() {
    const JobViewPtr view = context_.loop.snapshot()->Find(request_.job_id());
    if (view == nullptr) {
      return JobNotFound(request_.job_id());
    }
    if (request_.rank() < 0 || request_.offset() < 0 || request_.tail_lines() < 0 ||
        request_.attempt() < 0) {
      return InvalidArgument("rank, attempt, offset and tail_lines must not be negative");
    }
    attempt_ = request_.attempt() > 0 ? request_.attempt() : view->job.attempt;
    const std::string directory =
        request_.attempt() > 0
            ? JoinPath(view->job_dir, AttemptDirName(AttemptKind::kTrain, attempt_))
            : view->attempt_dir;
    if (directory.empty()) {
      return {Code::kNotFound,
              "NO_LOG_YET",
              StrCat("job ", request_.job_id(), " has not started: there is no log yet")};
    }
    path_ = JoinPath(directory, StrCat("rank-", request_.rank(), ".log"));
    return Status::Ok();
  }

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

  void PostRead() {
    {
      const std::lock_guard lock(mutex_);
      if (finish_requested_ || writing_) {
        return;
      }
    }
    if (!context_.tasks.Post([self = shared_from_this()] { self->ReadChunk(); })) {
      RequestFinish(
          grpc::Status(grpc::StatusCode::UNAVAILABLE, "the daemon is stopping or overloaded"));
    }
  }

  Result<std::string> ReadSome() {
    MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path_, O_RDONLY));
    if (request_.tail_lines() > 0 && !tail_applied_) {
      tail_applied_ = true;
      MFT_ASSIGN_OR_RETURN(const int64_t size, FileSize(path_));
      MFT_ASSIGN_OR_RETURN(offset_, TailOffset(fd.get(), size, request_.tail_lines(), path_));
    }
    std::string data(kChunkBytes, '\0');
    const ssize_t got = pread(fd.get(), data.data(), data.size(), offset_);
    if (got < 0) {
      return ErrnoStatus(errno, StrCat("reading ", path_));
    }
    data.resize(static_cast<size_t>(got));
    return data;
  }

  void ReadChunk() {
    // Asked before the read: what the job wrote before it ended is then read for certain.
    const JobViewPtr view = context_.loop.snapshot()->Find(request_.job_id());
    const bool job_over =
        view == nullptr || IsFinal(view->job.state) || view->job.attempt > attempt_;
    auto data = ReadSome();
    if (!data.ok()) {
      RequestFinish(ToGrpcStatus(data.status(), {{"job_id", request_.job_id()}}));
      return;
    }
    if (data->empty()) {
      if (!request_.follow() || job_over) {
        RequestFinish(grpc::Status::OK);
      } else {
        context_.ticker.Add([weak = weak_from_this()] {
          if (const auto self = weak.lock()) {
            self->PostRead();
          }
          return false;
        });
      }
      return;
    }
    response_.set_attempt(attempt_);
    response_.set_offset(offset_);
    offset_ += static_cast<int64_t>(data->size());
    response_.set_data(std::move(*data));
    {
      const std::lock_guard lock(mutex_);
      if (finish_requested_) {
        return;
      }
      writing_ = true;
    }
    StartWrite(&response_);
  }

  const ServiceContext context_;
  const v1::ReadLogsRequest request_;
  std::string path_;
  int attempt_ = 0;
  uint64_t key_ = 0;
  std::shared_ptr<LogStream> self_;  // gRPC's reference, dropped in OnDone

  // Used by one task at a time: the next is posted when the write of the last is done.
  int64_t offset_ = 0;
  bool tail_applied_ = false;
  v1::ReadLogsResponse response_;

  std::mutex mutex_;  // guards what follows
  bool writing_ = false;
  bool finish_requested_ = false;
  bool finished_ = false;
  grpc::Status finish_status_;
};
}  // namespace

grpc::ServerWriteReactor<v1::ReadLogsResponse>* StartReadLogs(const ServiceContext& context,
                                                              const v1::ReadLogsRequest& request) {
  const auto stream = std::make_shared<LogStream>(context, request);
  stream->Start();
  return stream.get();
}

}  // namespace mft::server
