// SPDX-License-Identifier: Apache-2.0
#include "server/exec/attempt_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "common/base/strings.h"

namespace mft::server {

std::string RankJournalName(int rank) {
  return StrCat("rank-", rank, ".jsonl");
}

Status CreateAttemptDir(const std::string& dir, const AttemptFile& file) {
  if (PathExists(dir)) {
    return AlreadyExists(StrCat(dir, ": exists already"));
  }
  MFT_RETURN_IF_ERROR(MakeDurableDirs(dir, 0700));
  return WriteAttemptFile(JoinPath(dir, kAttemptFileName), file);
}

Result<bool> AttemptLockHeld(const std::string& attempt_dir) {
  Result<UniqueFd> lock = TryLockFile(JoinPath(attempt_dir, kAttemptLockName));
  if (!lock.ok() && lock.status().code() == Code::kNotFound) {
    return false;  // the directory is gone: nobody can live in it
  }
  if (!lock.ok()) {
    return lock.status();
  }
  return !lock->valid();
}

Result<bool> AttemptLivesElseClose(const std::string& attempt_dir) {
  Result<UniqueFd> lock = TryLockFile(JoinPath(attempt_dir, kAttemptLockName));
  if (!lock.ok() && lock.status().code() == Code::kNotFound) {
    return false;
  }
  MFT_RETURN_IF_ERROR(lock.status());
  if (!lock->valid()) {
    return true;
  }
  const std::string journal = JoinPath(attempt_dir, kRunnerJournalName);
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(journal, O_WRONLY | O_CREAT));
  MFT_RETURN_IF_ERROR(Fsync(fd.get(), journal));
  MFT_RETURN_IF_ERROR(FsyncDir(attempt_dir));
  return false;
}

Result<std::vector<UniqueFd>> LockGpus(const std::string& lock_dir,
                                       const std::vector<std::string>& uuids) {
  std::vector<UniqueFd> locks;
  for (const std::string& uuid : uuids) {
    const std::string path = JoinPath(lock_dir, StrCat("mft-gpu-", uuid));
    // Read-only: the file may belong to another user, and flock does not need more.
    MFT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY | O_CREAT, 0444));
    if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) {
        return ErrnoStatus(errno, StrCat("locking ", path));
      }
      return Status(Code::kFailedPrecondition,
                    "GPU_LOCKED",
                    StrCat("GPU ", uuid, " is held by another daemon (", path, " is locked)"));
    }
    locks.push_back(std::move(fd));
  }
  return locks;
}

}  // namespace mft::server
