// SPDX-License-Identifier: Apache-2.0
#include "common/base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "common/base/ids.h"
#include "common/base/strings.h"

namespace mft {

namespace fs = std::filesystem;

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

UniqueFd::~UniqueFd() {
  reset();
}

void UniqueFd::reset() {
  if (fd_ >= 0) {
    close(fd_);
    fd_ = -1;
  }
}

Result<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode) {
  while (true) {
    const int fd = open(path.c_str(), flags | O_CLOEXEC, mode);
    if (fd >= 0) {
      return UniqueFd(fd);
    }
    if (errno != EINTR) {
      return ErrnoStatus(errno, path);
    }
  }
}

Result<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  std::string content;
  constexpr size_t kChunk = size_t{1} << 16;
  while (true) {
    const size_t old_size = content.size();
    content.resize(old_size + kChunk);
    const ssize_t got = read(fd.get(), content.data() + old_size, kChunk);
    content.resize(old_size + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && errno != EINTR) {
      return ErrnoStatus(errno, StrCat("reading ", path));
    }
    if (content.size() > max_bytes) {
      return InvalidArgument(StrCat(
          path, ": larger than the limit of ", FormatBytes(static_cast<int64_t>(max_bytes))));
    }
    if (got == 0) {
      return content;
    }
  }
}

Status WriteAll(int fd, std::string_view data, std::string_view path_for_messages) {
  while (!data.empty()) {
    const ssize_t written = write(fd, data.data(), data.size());
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoStatus(errno, StrCat("writing ", path_for_messages));
    }
    data.remove_prefix(static_cast<size_t>(written));
  }
  return Status::Ok();
}

Status Fsync(int fd, std::string_view path_for_messages) {
  if (fsync(fd) != 0) {
    return ErrnoStatus(errno, StrCat("fsync of ", path_for_messages));
  }
  return Status::Ok();
}

Status FsyncDir(const std::string& directory) {
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(directory, O_RDONLY | O_DIRECTORY));
  return Fsync(fd.get(), directory);
}

Status WriteFileAtomic(const std::string& path, std::string_view content, mode_t mode) {
  const std::string temporary = StrCat(path, ".tmp.", RandomHex(6));
  const auto write_it = [&]() -> Status {
    MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(temporary, O_WRONLY | O_CREAT | O_EXCL, mode));
    MFT_RETURN_IF_ERROR(WriteAll(fd.get(), content, path));
    MFT_RETURN_IF_ERROR(Fsync(fd.get(), path));
    if (rename(temporary.c_str(), path.c_str()) != 0) {
      return ErrnoStatus(errno, StrCat("renaming ", temporary, " to ", path));
    }
    return FsyncDir(fs::path(path).has_parent_path() ? fs::path(path).parent_path().string() : ".");
  };
  const Status status = write_it();
  if (!status.ok()) {
    unlink(temporary.c_str());
  }
  return status;
}

bool PathExists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

bool IsDirectory(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

Result<int64_t> FileSize(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, path);
  }
  return int64_t{info.st_size};
}

Result<int64_t> ModifiedMicros(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, path);
  }
  return int64_t{info.st_mtim.tv_sec} * 1'000'000 + info.st_mtim.tv_nsec / 1000;
}

Status MakeDirs(const std::string& path, mode_t mode) {
  const fs::path target(path);
  if (IsDirectory(path)) {
    return Status::Ok();
  }
  if (target.has_parent_path() && target.parent_path() != target) {
    MFT_RETURN_IF_ERROR(MakeDirs(target.parent_path().string(), mode));
  }
  if (mkdir(path.c_str(), mode) != 0 && !(errno == EEXIST && IsDirectory(path))) {
    return ErrnoStatus(errno, StrCat("creating directory ", path));
  }
  return Status::Ok();
}

Status MakeDurableDirs(const std::string& path, mode_t mode) {
  if (IsDirectory(path)) {
    return Status::Ok();
  }
  const std::string parent = fs::path(path).parent_path().string();
  if (parent != path && !parent.empty()) {
    MFT_RETURN_IF_ERROR(MakeDurableDirs(parent, mode));
  }
  MFT_RETURN_IF_ERROR(MakeDirs(path, mode));
  return FsyncDir(parent.empty() ? "." : parent);
}

Status RemoveTree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? ErrnoStatus(error.value(), StrCat("removing ", path)) : Status::Ok();
}

Status ReplaceLink(const std::string& target, const std::string& link) {
  std::error_code error;
  if (fs::read_symlink(link, error) == target) {
    return Status::Ok();
  }
  const std::string temporary = StrCat(link, ".tmp.", RandomHex(6));
  if (symlink(target.c_str(), temporary.c_str()) != 0) {
    return ErrnoStatus(errno, StrCat("making the link ", temporary));
  }
  if (rename(temporary.c_str(), link.c_str()) != 0) {
    const Status status = ErrnoStatus(errno, StrCat("renaming ", temporary, " to ", link));
    unlink(temporary.c_str());
    return status;
  }
  return FsyncDir(fs::path(link).parent_path().string());
}

Status RemoveLink(const std::string& link) {
  std::error_code error;
  if (!fs::is_symlink(link, error)) {
    return Status::Ok();
  }
  return unlink(link.c_str()) == 0 || errno == ENOENT
             ? FsyncDir(fs::path(link).parent_path().string())
             : ErrnoStatus(errno, StrCat("removing ", link));
}

Result<std::vector<std::string>> ListDir(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) {
    return ErrnoStatus(error.value(), StrCat("listing ", path));
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<int64_t> FreeDiskBytes(const std::string& path) {
  struct statvfs info {};
  if (statvfs(path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, path);
  }
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

std::string ExecutableDir() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path().string();
}

std::string JoinPath(std::string_view a, std::string_view b) {
  return (fs::path(a) / fs::path(b)).string();
}

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error).lexically_normal();
  // "dir/" and "dir" are the same place: without the empty last component they compare equal.
  return (absolute.has_filename() ? absolute : absolute.parent_path()).string();
}

Result<UniqueFd> TryLockFile(const std::string& path, mode_t mode) {
  MFT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT, mode));
  while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return UniqueFd();
    }
    if (errno != EINTR) {
      return ErrnoStatus(errno, StrCat("locking ", path));
    }
  }
  return fd;
}

void DropPages(std::span<const std::byte> mapped) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(mapped.data()) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(mapped.data() + mapped.size());
  static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED));
}

Result<MappedFile> MappedFile::Open(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, path);
  }
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument(StrCat(path, ": not a regular file"));
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) {
    return MappedFile(nullptr, 0);
  }
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) {
    return ErrnoStatus(errno, StrCat("mapping ", path));
  }
  return MappedFile(static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    munmap(const_cast<std::byte*>(data_), size_);
  }
}

}  // namespace mft
