// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/checkpoint_dir.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/checkpoint/manifest.h"
#include "common/checkpoint/publish_dir.h"

namespace mft {

namespace {

constexpr std::string_view kPrefix = "checkpoint_";
constexpr std::string_view kBestLink = "best";

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

// Adds the manifest and brings everything to disk. Returns the bytes of all files.
Result<int64_t> Seal(const std::string& directory, Manifest manifest) {
  MFT_ASSIGN_OR_RETURN(const DirectoryTree tree, ListTree(directory));
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
  MFT_RETURN_IF_ERROR(RenameToNew(JoinPath(directory, name), JoinPath(directory, target)));
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
  MFT_RETURN_IF_ERROR(RenameToNew(temporary.path(), target));
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

std::vector<std::string> RemoveOldCheckpoints(const std::string& run_dir,
                                              int64_t keep,
                                              int64_t best) {
  std::vector<std::string> removed;
  const std::vector<int64_t> steps = ListCheckpointSteps(run_dir);
  if (keep <= 0 || steps.size() <= static_cast<size_t>(keep)) {
    return removed;
  }
  const std::string directory = CheckpointsDir(run_dir);
  for (size_t i = 0; i < steps.size() - static_cast<size_t>(keep); ++i) {
    if (steps[i] == best) {
      continue;
    }
    const std::string name = NameOf(steps[i]);
    // Out of the way first: a removal that is cut short must not leave half a checkpoint.
    const std::string doomed =
        JoinPath(directory, StrCat(kTemporaryPrefix, "removed.", name, ".", RandomHex(6)));
    const Status renamed = RenameToNew(JoinPath(directory, name), doomed);
    LogIfError(renamed, "removing an old checkpoint");
    if (renamed.ok()) {
      LogIfError(RemoveTree(doomed), "removing an old checkpoint");
      removed.push_back(name);
    }
  }
  return removed;
}

Status PointBestAt(const std::string& run_dir, int64_t step) {
  const std::string directory = CheckpointsDir(run_dir);
  const std::string link = JoinPath(directory, kBestLink);
  if (step == 0) {
    return RemoveLink(link);
  }
  return ReplaceLink(NameOf(step), link);
}

int64_t BestCheckpointStep(const std::string& run_dir) {
  std::error_code error;
  const std::string link = JoinPath(CheckpointsDir(run_dir), kBestLink);
  const std::string name = std::filesystem::read_symlink(link, error).string();
  return PathExists(link) ? StepOf(name).value_or(0) : 0;
}

}  // namespace mft
