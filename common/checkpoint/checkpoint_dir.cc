// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/checkpoint_dir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <optional>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/checkpoint/manifest.h"

namespace mft {

namespace {

constexpr std::string_view kPrefix = "checkpoint_";
constexpr std::string_view kTemporaryPrefix = "tmp.";

std::string NameOf(int64_t step) {
  const std::string digits = std::to_string(step);
  constexpr size_t kMinDigits = 6;
  return StrCat(
      kPrefix, std::string(kMinDigits - std::min(digits.size(), kMinDigits), '0'), digits);
}

std::optional<int64_t> StepOf(const std::string& name) {
  if (!name.starts_with(kPrefix)) {
    return std::nullopt;
  }
  int64_t step = 0;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  return step >= 0 && NameOf(step) == name ? std::optional(step) : std::nullopt;
}

// Removes a directory at the end of its scope unless it was published; exceptions included.
class TemporaryDir {
 public:
  explicit TemporaryDir(std::string path) : path_(std::move(path)) {}
  ~TemporaryDir() {
    if (!path_.empty()) {
      LogIfError(RemoveTree(path_), "removing an unfinished checkpoint");
    }
  }
  TemporaryDir(const TemporaryDir&) = delete;
  TemporaryDir& operator=(const TemporaryDir&) = delete;
  const std::string& path() const { return path_; }
  void Published() { path_.clear(); }

 private:
  std::string path_;
};

// Every file below `directory`, relative to it, and every directory, deepest first.
struct Tree {
  std::vector<std::string> files;
  std::vector<std::string> directories;
};

Status Walk(const std::string& root, const std::string& relative, Tree& tree) {
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

Status FsyncFile(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  return Fsync(fd.get(), path);
}

// Adds the manifest and brings everything to disk. Returns the bytes of all files.
Result<int64_t> Seal(const std::string& directory, Manifest manifest) {
  Tree tree;
  MFT_RETURN_IF_ERROR(Walk(directory, "", tree));
  int64_t bytes = 0;
  manifest.version = kManifestVersion;
  manifest.files.clear();
  for (const std::string& file : tree.files) {
    MFT_RETURN_IF_ERROR(FsyncFile(JoinPath(directory, file)));
    MFT_ASSIGN_OR_RETURN(ManifestFile described, DescribeFile(directory, file));
    bytes += described.size;
    manifest.files.push_back(std::move(described));
  }
  const std::string text = ManifestToJson(manifest);
  MFT_RETURN_IF_ERROR(WriteFileAtomic(ManifestPath(directory), text));
  for (const std::string& each : tree.directories) {
    MFT_RETURN_IF_ERROR(FsyncDir(each));
  }
  return bytes + static_cast<int64_t>(text.size());
}

Status Rename(const std::string& from, const std::string& to) {
  // Never onto something that is there, not even an empty directory.
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
    return Status::Ok();
  }
  // Some network file systems do not know the flag.
  if (errno == EINVAL && !PathExists(to) && rename(from.c_str(), to.c_str()) == 0) {
    return Status::Ok();
  }
  return ErrnoStatus(errno, StrCat("renaming ", from, " to ", to));
}

Status VerifyCheckpointOfStep(const std::string& path, int64_t step) {
  MFT_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(path));
  if (manifest.step != step) {
    return DataLoss(StrCat(path, ": its manifest is of step ", manifest.step));
  }
  return VerifyCheckpoint(path);
}

Result<std::string> SetAside(const std::string& directory,
                             const std::string& name,
                             const std::string& attempt_id) {
  const std::string base = StrCat(name, ".bad-", attempt_id.empty() ? "alone" : attempt_id);
  std::string target = base;
  for (int again = 2; PathExists(JoinPath(directory, target)); ++again) {
    target = StrCat(base, "-", again);
  }
  MFT_RETURN_IF_ERROR(Rename(JoinPath(directory, name), JoinPath(directory, target)));
  return target;
}

}  // namespace

std::string CheckpointsDir(const std::string& run_dir) {
  return JoinPath(run_dir, "checkpoints");
}

std::string CheckpointDir(const std::string& run_dir, int64_t step) {
  return JoinPath(CheckpointsDir(run_dir), NameOf(step));
}

Result<int64_t> PublishCheckpoint(
    const std::string& run_dir,
    Manifest manifest,
    const std::function<Status(const std::string& directory)>& write) {
  const std::string parent = CheckpointsDir(run_dir);
  const std::string target = CheckpointDir(run_dir, manifest.step);
  if (PathExists(target)) {
    return AlreadyExists(StrCat(target, ": this checkpoint exists already"));
  }
  MFT_RETURN_IF_ERROR(MakeDurableDirs(parent));
  TemporaryDir temporary(
      JoinPath(parent, StrCat(kTemporaryPrefix, NameOf(manifest.step), ".", RandomHex(6))));
  MFT_RETURN_IF_ERROR(MakeDirs(JoinPath(temporary.path(), "consolidated")));
  MFT_RETURN_IF_ERROR(MakeDirs(JoinPath(temporary.path(), "state")));
  MFT_RETURN_IF_ERROR(write(temporary.path()));
  MFT_ASSIGN_OR_RETURN(const int64_t bytes, Seal(temporary.path(), std::move(manifest)));
  MFT_RETURN_IF_ERROR(Rename(temporary.path(), target));
  temporary.Published();
  MFT_RETURN_IF_ERROR(FsyncDir(parent));
  return bytes;
}

Result<CheckpointScan> ScanCheckpoints(const std::string& run_dir, const std::string& attempt_id) {
  CheckpointScan scan;
  const std::string directory = CheckpointsDir(run_dir);
  const auto names = ListDir(directory);
  if (!names.ok()) {
    return names.status().code() == Code::kNotFound ? Result<CheckpointScan>(scan)
                                                    : Result<CheckpointScan>(names.status());
  }
  for (const std::string& name : *names) {
    if (name.starts_with(kTemporaryPrefix)) {
      MFT_RETURN_IF_ERROR(RemoveTree(JoinPath(directory, name)));
    }
    const std::optional<int64_t> step = StepOf(name);
    if (!step.has_value()) {
      continue;
    }
    const Status verified = VerifyCheckpointOfStep(JoinPath(directory, name), *step);
    if (verified.ok()) {
      scan.good.push_back(*step);
      continue;
    }
    if (verified.code() != Code::kDataLoss) {
      return verified;
    }
    MFT_ASSIGN_OR_RETURN(const std::string target, SetAside(directory, name, attempt_id));
    scan.renamed.push_back(StrCat(name, " -> ", target, ": ", verified.message()));
  }
  std::ranges::sort(scan.good);
  MFT_RETURN_IF_ERROR(FsyncDir(directory));
  return scan;
}

std::vector<int64_t> ListCheckpointSteps(const std::string& run_dir) {
  std::vector<int64_t> steps;
  const auto names = ListDir(CheckpointsDir(run_dir));
  if (names.ok()) {
    for (const std::string& name : *names) {
      if (const std::optional<int64_t> step = StepOf(name)) {
        steps.push_back(*step);
      }
    }
  }
  std::ranges::sort(steps);
  return steps;
}

std::vector<std::string> RemoveOldCheckpoints(const std::string& run_dir, int64_t keep) {
  std::vector<std::string> removed;
  const std::vector<int64_t> steps = ListCheckpointSteps(run_dir);
  if (keep <= 0 || steps.size() <= static_cast<size_t>(keep)) {
    return removed;
  }
  const std::string directory = CheckpointsDir(run_dir);
  for (size_t i = 0; i < steps.size() - static_cast<size_t>(keep); ++i) {
    const std::string name = NameOf(steps[i]);
    // Out of the way first: a removal that is cut short must not leave half a checkpoint.
    const std::string doomed =
        JoinPath(directory, StrCat(kTemporaryPrefix, "removed.", name, ".", RandomHex(6)));
    const Status renamed = Rename(JoinPath(directory, name), doomed);
    LogIfError(renamed, "removing an old checkpoint");
    if (renamed.ok()) {
      LogIfError(RemoveTree(doomed), "removing an old checkpoint");
      removed.push_back(name);
    }
  }
  return removed;
}

}  // namespace mft
