// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/log_stream.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "server/rpc/errors.h"
#include "server/rpc/server_stream.h"

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

// Files are read on a task thread, one task at a time: the next is posted when the write of the
// last is done.
class LogStream final : public ServerStream<v1::ReadLogsResponse> {
 public:
  LogStream(const ServiceContext& context, const v1::ReadLogsRequest& request)
      : ServerStream(context), request_(request), offset_(request.offset()) {}

  void Start() {
    Status status = Open();
    if (status.ok()) {
      status = FindLog();
    }
    if (!status.ok()) {
      RequestFinish(ToGrpcStatus(status, {{"job_id", request_.job_id()}}));
      return;
    }
    PostRead();
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

  void Written() override { PostRead(); }

  void PostRead() {
    if (Idle()) {
      PostOrFinish(context_.tasks, [self = Self()] { self->ReadChunk(); });
    }
  }

  std::shared_ptr<LogStream> Self() {
    return std::static_pointer_cast<LogStream>(shared_from_this());
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
        context_.ticker.Add([weak = std::weak_ptr(Self())] {
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
    Write(&response_);
  }

  const v1::ReadLogsRequest request_;
  std::string path_;
  int attempt_ = 0;
  int64_t offset_ = 0;
  bool tail_applied_ = false;
  v1::ReadLogsResponse response_;
};
}  // namespace

grpc::ServerWriteReactor<v1::ReadLogsResponse>* StartReadLogs(const ServiceContext& context,
                                                              const v1::ReadLogsRequest& request) {
  const auto stream = std::make_shared<LogStream>(context, request);
  stream->Start();
  return stream.get();
}

}  // namespace mft::server
