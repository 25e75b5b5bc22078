// SPDX-License-Identifier: Apache-2.0
// Files that must survive a crash, and the locks that say who lives.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace mft {

// Owns a file descriptor. Move-only; closes on destruction.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd();
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC; retries EINTR; the error names the path.
Result<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode = 0644);
// The whole file; larger than `max_bytes` is an error.
Result<std::string> ReadFile(const std::string& path, size_t max_bytes = size_t{64} << 20);
// Writes all of `data`, retrying short writes and EINTR.
Status WriteAll(int fd, std::string_view data, std::string_view path_for_messages);
Status Fsync(int fd, std::string_view path_for_messages);
Status FsyncDir(const std::string& directory);
// Temporary file beside it, fsync, rename, fsync of the directory: readers see the old or the new
// content.
Status WriteFileAtomic(const std::string& path, std::string_view content, mode_t mode = 0644);

bool PathExists(const std::string& path);
bool IsDirectory(const std::string& path);
Result<int64_t> FileSize(const std::string& path);
Result<int64_t> ModifiedMicros(const std::string& path);  // wall clock
Status MakeDirs(const std::string& path, mode_t mode = 0755);
// The same; every new entry is on disk on return.
Status MakeDurableDirs(const std::string& path, mode_t mode = 0755);
Status RemoveTree(const std::string& path);
// Makes `link` a symbolic link to `target`, in one step, whatever link it was before; nothing is
// written if it is one already. An error where `link` is something else.
Status ReplaceLink(const std::string& target, const std::string& link);
// Removes a symbolic link; whatever else is there, or nothing, stays.
Status RemoveLink(const std::string& link);
// Names (not paths) in a directory, sorted, without "." and "..".
Result<std::vector<std::string>> ListDir(const std::string& path);
Result<int64_t> FreeDiskBytes(const std::string& path);
// Folder of the running executable: where the sibling programs are.
std::string ExecutableDir();
std::string JoinPath(std::string_view a, std::string_view b);  // b absolute: b
std::string AbsolutePath(
    const std::string& path);  // lexically normal, against the working directory

// flock(2), exclusive. `TryLockFile` gives an invalid descriptor when somebody else holds it.
Result<UniqueFd> TryLockFile(const std::string& path, mode_t mode = 0644);

// Says that the pages of a part of a mapped file are not needed now: they may leave memory, and are
// read again when they are. Advice: nothing fails.
void DropPages(std::span<const std::byte> mapped);

// A read-only private mapping of a whole file; an empty file maps to an empty span.
// Lifetime: the bytes live as long as the object. Pages cut off by somebody else raise SIGBUS,
// so only files that are never shortened (published ones, model weights) may be mapped.
class MappedFile {
 public:
  static Result<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mft
