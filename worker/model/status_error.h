// SPDX-License-Identifier: Apache-2.0
// A Status on its way up: code beside Torch throws, and the one catch in the worker's main turns
// what arrives into a final record and an exit code.
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <utility>

#include "common/base/status.h"

namespace mft {

class StatusError : public std::exception {
 public:
  explicit StatusError(Status status) : status_(std::move(status)) {}
  const Status& status() const { return status_; }
  const char* what() const noexcept override { return status_.message().c_str(); }

 private:
  Status status_;
};

inline void ThrowIfError(Status status) {
  if (!status.ok()) {
    throw StatusError(std::move(status));
  }
}

// Of `work`, whatever it throws: memory that is used up is RESOURCE_EXHAUSTED (OUT_OF_MEMORY),
// other exceptions are INTERNAL.
Status RunCatching(const std::function<Status()>& work);

template <typename T>
T ValueOrThrow(Result<T> result) {
  ThrowIfError(result.status());
  return std::move(result).value();
}

}  // namespace mft
