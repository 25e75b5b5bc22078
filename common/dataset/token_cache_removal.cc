// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <ctime>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/dataset/token_cache.h"
#include "common/dataset/token_cache_format.h"

namespace mft {
namespace {

constexpr int64_t kStartingSeconds = 60;

// A directory without its file belongs to a writer that is just starting, or to one that was
// killed. rmdir refuses a directory that has a file by then, and a writer that loses its directory
// makes another.
void RemoveIfForgotten(const std::string& directory) {
  struct stat info {};
  if (stat(directory.c_str(), &info) == 0 && info.st_mtime < time(nullptr) - kStartingSeconds) {
    rmdir(directory.c_str());
  }
}

}  // namespace

Status RemoveStaleTokenCaches(const std::string& cache_root) {
  MFT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(cache_root));
  for (const std::string& name : names) {
    if (!name.starts_with(token_cache_format::kTemporaryPrefix)) {
      continue;
    }
    const std::string directory = JoinPath(cache_root, name);
    const std::string file = JoinPath(directory, token_cache_format::kFileName);
    if (!PathExists(file)) {  // one that vanishes meanwhile was published
      RemoveIfForgotten(directory);
      continue;
    }
    const Result<UniqueFd> lock = TryLockFile(file);
    if (lock.ok() && lock->valid()) {
      MFT_RETURN_IF_ERROR(RemoveTree(directory));
    }
  }
  return Status::Ok();
}

Result<bool> TakeTokenCacheAway(const std::string& directory, const std::function<bool()>& keep) {
  const std::string file = JoinPath(directory, token_cache_format::kFileName);
  MFT_ASSIGN_OR_RETURN(const UniqueFd lock, TryLockFile(file));
  if (!lock.valid() || keep()) {
    return false;
  }
  const std::string gone = JoinPath(directory.substr(0, directory.find_last_of('/')),
                                    StrCat(token_cache_format::kTemporaryPrefix, RandomHex(8)));
  if (std::rename(directory.c_str(), gone.c_str()) != 0) {
    return ErrnoStatus(errno, StrCat("renaming ", directory, " to ", gone));
  }
  // The lock is held until the end: a reader that opened the file before waits, and then finds no
  // cache.
  MFT_RETURN_IF_ERROR(RemoveTree(gone));
  return true;
}

}  // namespace mft
