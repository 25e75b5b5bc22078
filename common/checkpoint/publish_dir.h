// SPDX-License-Identifier: Apache-2.0
// Directories that appear by one rename after everything in them is on disk, or not at all.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace mft {

inline constexpr std::string_view kTemporaryPrefix = "tmp.";

// Removes a directory at the end of its scope unless it was published; exceptions included.
class TemporaryDir {
 public:
  explicit TemporaryDir(std::string path) : path_(std::move(path)) {}
  ~TemporaryDir();
  TemporaryDir(const TemporaryDir&) = delete;
  TemporaryDir& operator=(const TemporaryDir&) = delete;
  const std::string& path() const { return path_; }
  void Published() { path_.clear(); }

 private:
  std::string path_;
};

// Every file below a directory, relative to it, and every directory, deepest first.
struct DirectoryTree {
  std::vector<std::string> files;
  std::vector<std::string> directories;
};
// What is neither a file nor a directory is an error.
Result<DirectoryTree> ListTree(const std::string& root);

Status FsyncFile(const std::string& path);

// Never onto something that is there, not even an empty directory.
Status RenameToNew(const std::string& from, const std::string& to);

enum class IfThere {
  kFail,     // ALREADY_EXISTS, but an empty directory is taken
  kReplace,  // the old one goes when the new one is complete
};
// Calls `write` with an empty temporary directory beside `target`, syncs all of it, and renames.
// On failure, also by an exception of `write`, the temporary directory is removed. A process that
// is killed leaves it, under a name that begins with kTemporaryPrefix.
Status PublishDirectory(const std::string& target,
                        IfThere if_there,
                        const std::function<Status(const std::string& directory)>& write);

}  // namespace mft
