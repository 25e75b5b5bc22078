// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/publish_dir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/strings.h"

namespace mft {

namespace {
Status Walk(const std::string& root, const std::string& relative, DirectoryTree& tree) {
  const std::string directory = relative.empty() ? root : JoinPath(root, relative);
  MFT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(directory));
  for (const std::string& name : names) {
    const std::string path = relative.empty() ? name : JoinPath(relative, name);
    struct stat info {};
    if (lstat(JoinPath(root, path).c_str(), &info) != 0) {
      return ErrnoStatus(errno, JoinPath(root, path));
    }
    if (S_ISDIR(info.st_mode)) {
      MFT_RETURN_IF_ERROR(Walk(root, path, tree));
    } else if (S_ISREG(info.st_mode)) {
      tree.files.push_back(path);
    } else {
      return Internal(StrCat(JoinPath(root, path), ": neither a file nor a directory"));
    }
  }
  tree.directories.push_back(directory);
  return Status::Ok();
}

Status SyncTree(const std::string& root) {
  MFT_ASSIGN_OR_RETURN(const DirectoryTree tree, ListTree(root));
  for (const std::string& file : tree.files) {
    MFT_RETURN_IF_ERROR(FsyncFile(JoinPath(root, file)));
  }
  for (const std::string& directory : tree.directories) {
    MFT_RETURN_IF_ERROR(FsyncDir(directory));
  }
  return Status::Ok();
}

// An empty directory that somebody made for the result is no result.
Status CheckFree(const std::string& target) {
  if (!PathExists(target)) {
    return Status::Ok();
  }
  if (IsDirectory(target)) {
    MFT_ASSIGN_OR_RETURN(const auto names, ListDir(target));
    if (names.empty()) {
      return Status::Ok();
    }
  }
  return AlreadyExists(StrCat(target, ": is there already and is not empty; nothing was written"));
}

// `from` takes the name, and what had it is removed: readers see the old or the new directory.
Status Replace(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    return RemoveTree(from);
  }
  if (errno != EINVAL) {
    return ErrnoStatus(errno, StrCat("exchanging ", from, " and ", to));
  }
  // Some network file systems do not know the flag.
  const std::string old = from + ".old";
  MFT_RETURN_IF_ERROR(RenameToNew(to, old));
  MFT_RETURN_IF_ERROR(RenameToNew(from, to));
  return RemoveTree(old);
}
}  // namespace

TemporaryDir::~TemporaryDir() {
  if (!path_.empty()) {
    LogIfError(RemoveTree(path_), "removing an unfinished directory");
  }
}

Result<DirectoryTree> ListTree(const std::string& root) {
  DirectoryTree tree;
  MFT_RETURN_IF_ERROR(Walk(root, "", tree));
  return tree;
}

Status FsyncFile(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  return Fsync(fd.get(), path);
}

Status RenameToNew(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
    return Status::Ok();
  }
  // Some network file systems do not know the flag.
  if (errno == EINVAL && !PathExists(to) && rename(from.c_str(), to.c_str()) == 0) {
    return Status::Ok();
  }
  return ErrnoStatus(errno, StrCat("renaming ", from, " to ", to));
}

Status PublishDirectory(const std::string& target,
                        IfThere if_there,
                        const std::function<Status(const std::string& directory)>& write) {
  std::string path = AbsolutePath(target);
  if (path.size() > 1 && path.ends_with('/')) {
    path.pop_back();
  }
  if (if_there == IfThere::kFail) {
    MFT_RETURN_IF_ERROR(CheckFree(path));
  }
  const std::filesystem::path split(path);
  const std::string parent = split.parent_path().string();
  MFT_RETURN_IF_ERROR(MakeDurableDirs(parent));
  TemporaryDir temporary(
      JoinPath(parent, StrCat(kTemporaryPrefix, split.filename().string(), ".", RandomHex(6))));
  MFT_RETURN_IF_ERROR(MakeDirs(temporary.path()));
  MFT_RETURN_IF_ERROR(write(temporary.path()));
  MFT_RETURN_IF_ERROR(SyncTree(temporary.path()));
  if (if_there == IfThere::kReplace && PathExists(path)) {
    MFT_RETURN_IF_ERROR(Replace(temporary.path(), path));
  } else {
    MFT_RETURN_IF_ERROR(CheckFree(path));
    rmdir(path.c_str());  // where it is there and empty
    MFT_RETURN_IF_ERROR(RenameToNew(temporary.path(), path));
  }
  temporary.Published();
  return FsyncDir(parent);
}

}  // namespace mft
