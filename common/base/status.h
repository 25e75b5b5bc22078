// SPDX-License-Identifier: Apache-2.0
// How everything outside Torch code reports failure: a canonical code (gRPC's numbering, so that
// the RPC edge is a cast), a machine-readable reason and one message that names the thing and the
// value.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace mft {

// The canonical codes of google/rpc/code.proto that this project uses, with gRPC's numbers.
enum class Code {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
};

// "NOT_FOUND" and so on.
std::string_view CodeName(Code code);

// The exit code of design.md 4.1 for a failure of this class (0 for kOk).
int ExitCodeFor(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  Status(Code code, std::string reason, std::string message)
      : code_(code), reason_(std::move(reason)), message_(std::move(message)) {}

  static Status Ok() { return {}; }
  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  // UPPER_SNAKE_CASE, e.g. "RUN_DIR_IN_USE"; empty where the code says it all.
  const std::string& reason() const { return reason_; }
  const std::string& message() const { return message_; }

  // Returns this failure with "context: " before its message; an ok status stays ok.
  Status WithContext(std::string_view context) const;
  // "NOT_FOUND: message", for logs.
  std::string ToString() const;

 private:
  Code code_ = Code::kOk;
  std::string reason_;
  std::string message_;
};

inline Status InvalidArgument(std::string message) {
  return {Code::kInvalidArgument, std::move(message)};
}
inline Status NotFound(std::string message) {
  return {Code::kNotFound, std::move(message)};
}
inline Status PermissionDenied(std::string message) {
  return {Code::kPermissionDenied, std::move(message)};
}
inline Status FailedPrecondition(std::string message) {
  return {Code::kFailedPrecondition, std::move(message)};
}
inline Status AlreadyExists(std::string message) {
  return {Code::kAlreadyExists, std::move(message)};
}
inline Status ResourceExhausted(std::string message) {
  return {Code::kResourceExhausted, std::move(message)};
}
inline Status Unimplemented(std::string message) {
  return {Code::kUnimplemented, std::move(message)};
}
inline Status Unavailable(std::string message) {
  return {Code::kUnavailable, std::move(message)};
}
inline Status Internal(std::string message) {
  return {Code::kInternal, std::move(message)};
}
inline Status DataLoss(std::string message) {
  return {Code::kDataLoss, std::move(message)};
}

// "WHAT: strerror(error_number)" with the canonical code that fits the errno.
Status ErrnoStatus(int error_number, std::string_view what);

// A T or the Status that says why there is none. value() on a failure aborts with its message.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : state_(std::move(status)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return std::holds_alternative<T>(state_); }
  Status status() const { return ok() ? Status::Ok() : std::get<Status>(state_); }
  T& value() & {
    RequireValue();
    return std::get<T>(state_);
  }
  const T& value() const& {
    RequireValue();
    return std::get<T>(state_);
  }
  T&& value() && {
    RequireValue();
    return std::get<T>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  void RequireValue() const;
  std::variant<Status, T> state_;
};

[[noreturn]] void CheckFailed(const char* file,
                              int line,
                              const char* condition,
                              const std::string& detail);

template <typename T>
void Result<T>::RequireValue() const {
  if (!ok()) {
    CheckFailed(__FILE__, __LINE__, "Result::ok()", std::get<Status>(state_).ToString());
  }
}

}  // namespace mft

// Programmer errors only: prints the condition and `detail` (a std::string), then aborts.
#define MFT_CHECK(condition, detail)                                \
  do {                                                              \
    if (!(condition)) {                                             \
      ::mft::CheckFailed(__FILE__, __LINE__, #condition, (detail)); \
    }                                                               \
  } while (false)

#define MFT_RETURN_IF_ERROR(expression)      \
  do {                                       \
    ::mft::Status mft_status = (expression); \
    if (!mft_status.ok()) {                  \
      return mft_status;                     \
    }                                        \
  } while (false)

#define MFT_CONCAT_INNER(a, b) a##b
#define MFT_CONCAT(a, b) MFT_CONCAT_INNER(a, b)
#define MFT_ASSIGN_OR_RETURN(declaration, expression) \
  MFT_ASSIGN_OR_RETURN_IMPL(MFT_CONCAT(mft_result_, __LINE__), declaration, expression)
#define MFT_ASSIGN_OR_RETURN_IMPL(result, declaration, expression) \
  auto result = (expression);                                      \
  if (!result.ok()) {                                              \
    return result.status();                                        \
  }                                                                \
  declaration = std::move(result).value()
