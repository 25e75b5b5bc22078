// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/rank_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/files.h"
#include "common/base/strings.h"

namespace mft::runner {

std::string LastLogLine(const std::string& path) {
  constexpr off_t kWindow = 4096;
  constexpr size_t kMaxShown = 300;
  const auto fd = OpenFile(path, O_RDONLY);
  const off_t size = fd.ok() ? lseek(fd->get(), 0, SEEK_END) : 0;
  if (size <= 0) {
    return "";
  }
  std::string tail(static_cast<size_t>(std::min(size, kWindow)), '\0');
  const ssize_t got =
      pread(fd->get(), tail.data(), tail.size(), size - static_cast<off_t>(tail.size()));
  tail.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  const std::string_view text = Trim(tail);
  const size_t newline = text.rfind('\n');
  return Printable(Trim(newline == std::string_view::npos ? text : text.substr(newline + 1)),
                   kMaxShown);
}

Status LimitLog(const std::string& path, int64_t keep_bytes) {
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_WRONLY));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, path);
  }
  constexpr int64_t kStatBlock = 512;  // st_blocks counts in these whatever the file system's are
  if (info.st_blocks * kStatBlock <= keep_bytes + keep_bytes / 4) {
    return Status::Ok();
  }
  const int64_t cut = (info.st_size - keep_bytes) / info.st_blksize * info.st_blksize;
  if (cut > 0 && fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, cut) != 0) {
    return ErrnoStatus(errno, StrCat("freeing the head of ", path));
  }
  return Status::Ok();
}

}  // namespace mft::runner
