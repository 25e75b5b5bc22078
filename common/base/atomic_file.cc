// SPDX-License-Identifier: Apache-2.0
#include "common/base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "common/base/strings.h"

namespace mft {

namespace {
constexpr size_t kBufferBytes = size_t{1} << 20;
}

Result<AtomicFile> AtomicFile::Create(const std::string& path, mode_t mode) {
  std::string temporary = StrCat(path, ".", getpid(), ".tmp");
  MFT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode));
  return AtomicFile(path, std::move(temporary), std::move(fd));
}

AtomicFile::~AtomicFile() {
  if (fd_.valid()) {
    unlink(temporary_.c_str());
  }
}

Status AtomicFile::Write(std::string_view data) {
  buffer_ += data;
  return buffer_.size() < kBufferBytes ? Status::Ok() : Flush();
}

Status AtomicFile::Flush() {
  MFT_RETURN_IF_ERROR(WriteAll(fd_.get(), buffer_, temporary_));
  buffer_.clear();
  return Status::Ok();
}

Status AtomicFile::Publish() {
  MFT_RETURN_IF_ERROR(Flush());
  MFT_RETURN_IF_ERROR(Fsync(fd_.get(), temporary_));
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return ErrnoStatus(errno, StrCat("renaming ", temporary_, " to ", path_));
  }
  fd_.reset();
  return FsyncDir(std::filesystem::path(AbsolutePath(path_)).parent_path());
}

}  // namespace mft
