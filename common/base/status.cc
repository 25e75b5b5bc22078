// SPDX-License-Identifier: Apache-2.0
#include "common/base/status.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mft {

namespace {
constexpr std::array<std::string_view, 16> kCodeNames = {"OK",
                                                         "CANCELLED",
                                                         "UNKNOWN",
                                                         "INVALID_ARGUMENT",
                                                         "DEADLINE_EXCEEDED",
                                                         "NOT_FOUND",
                                                         "ALREADY_EXISTS",
                                                         "PERMISSION_DENIED",
                                                         "RESOURCE_EXHAUSTED",
                                                         "FAILED_PRECONDITION",
                                                         "ABORTED",
                                                         "OUT_OF_RANGE",
                                                         "UNIMPLEMENTED",
                                                         "INTERNAL",
                                                         "UNAVAILABLE",
                                                         "DATA_LOSS"};

Code CodeForErrno(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return Code::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return Code::kPermissionDenied;
    case EEXIST:
    case EADDRINUSE:
      return Code::kAlreadyExists;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EFBIG:
      return Code::kResourceExhausted;
    case EINVAL:
    case ENAMETOOLONG:
    case EISDIR:
    case ELOOP:
      return Code::kInvalidArgument;
    default:
      return Code::kInternal;
  }
}
}  // namespace

std::string_view CodeName(Code code) {
  return kCodeNames[static_cast<size_t>(code)];
}

int ExitCodeFor(Code code) {
  switch (code) {
    case Code::kOk:
      return 0;
    case Code::kInvalidArgument:
      return 3;
    case Code::kPermissionDenied:
      return 4;
    case Code::kNotFound:
      return 5;
    case Code::kFailedPrecondition:
    case Code::kAlreadyExists:
    case Code::kAborted:
      return 6;
    case Code::kResourceExhausted:
      return 7;
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
      return 8;
    case Code::kCancelled:
    case Code::kUnknown:
    case Code::kOutOfRange:
    case Code::kUnimplemented:
    case Code::kInternal:
    case Code::kDataLoss:
      return 1;
  }
  return 1;
}

Status Status::WithContext(std::string_view context) const {
  if (ok()) {
    return *this;
  }
  return {code_, reason_, std::string(context) + ": " + message_};
}

std::string Status::ToString() const {
  if (ok()) {
    return "OK";
  }
  return std::string(CodeName(code_)) + ": " + message_;
}

Status ErrnoStatus(int error_number, std::string_view what) {
  char buffer[128] = {};
  // The GNU strerror_r may return a static string instead of filling the buffer.
  const char* text = strerror_r(error_number, buffer, sizeof buffer);
  return {CodeForErrno(error_number), std::string(what) + ": " + text};
}

void CheckFailed(const char* file, int line, const char* condition, const std::string& detail) {
  std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", file, line, condition, detail.c_str());
  std::abort();
}

}  // namespace mft
