// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft {

// A large file that appears whole or not at all: written beside its place, made durable, renamed.
// What is not published is removed. Threads: one at a time.
class AtomicFile {
 public:
  // `mode` is subject to the umask.
  static Result<AtomicFile> Create(const std::string& path, mode_t mode = 0644);
  AtomicFile(AtomicFile&& other) noexcept = default;
  AtomicFile& operator=(AtomicFile&& other) noexcept = delete;
  ~AtomicFile();

  Status Write(std::string_view data);
  Status Publish();  // call once, last

 private:
  AtomicFile(std::string path, std::string temporary, UniqueFd fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}
  Status Flush();

  std::string path_;
  std::string temporary_;
  UniqueFd fd_;  // invalid: published, or moved from
  std::string buffer_;
};

}  // namespace mft
