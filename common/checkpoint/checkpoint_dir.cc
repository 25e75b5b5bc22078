// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/checkpoint_dir.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"

namespace mft {

namespace fs = std::filesystem;

namespace {
constexpr std::string_view kPrefix = "checkpoint_";
constexpr std::string_view kManifestPath = "state/MANIFEST";
constexpr size_t kMaxManifestBytes = size_t{16} << 20;
constexpr size_t kHashChunk = size_t{1} << 20;

// The step in "checkpoint_000100"; -1 for any other name.
int64_t StepOf(const std::string& name) {
  const std::string_view digits =
      std::string_view(name).substr(std::min(kPrefix.size(), name.size()));
  if (!name.starts_with(kPrefix) || digits.size() < 6 || digits.size() > 15 ||
      digits.find_first_not_of("0123456789") != std::string_view::npos) {
    return -1;
  }
  return std::stoll(std::string(digits));
}

Result<ManifestFile> HashFile(const std::string& directory, const std::string& relative) {
  const std::string path = JoinPath(directory, relative);
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  Sha256 hash;
  ManifestFile file{.path = relative, .size = 0, .sha256 = {}};
  std::string buffer(kHashChunk, '\0');
  while (true) {
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno != EINTR) {
      return ErrnoStatus(errno, StrCat("reading ", path));
    }
    if (got == 0) {
      break;
    }
    if (got > 0) {
      hash.Update({buffer.data(), static_cast<size_t>(got)});
      file.size += got;
    }
  }
  file.sha256 = hash.FinishHex();
  return file;
}

// Relative paths of all regular files below `directory`, sorted.
Result<std::vector<std::string>> FilesBelow(const std::string& directory) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::recursive_directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    if (it->is_regular_file(error)) {
      files.push_back(fs::relative(it->path(), directory, error).string());
    }
  }
  if (error) {
    return ErrnoStatus(error.value(), StrCat("listing ", directory));
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string ManifestToJson(const Manifest& manifest) {
  Json json = {{"version", manifest.version},
               {"step", manifest.step},
               {"attempt", manifest.attempt},
               {"job_id", manifest.job_id},
               {"plan", manifest.plan},
               {"files", Json::array()}};
  for (const ManifestFile& file : manifest.files) {
    json["files"].push_back({{"path", file.path}, {"size", file.size}, {"sha256", file.sha256}});
  }
  return json.dump(2) + "\n";
}

Status SyncTree(const std::string& directory) {
  MFT_ASSIGN_OR_RETURN(const auto files, FilesBelow(directory));
  for (const std::string& file : files) {
    const std::string path = JoinPath(directory, file);
    MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
    MFT_RETURN_IF_ERROR(Fsync(fd.get(), path));
  }
  std::error_code error;
  for (fs::recursive_directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    if (it->is_directory(error)) {
      MFT_RETURN_IF_ERROR(FsyncDir(it->path().string()));
    }
  }
  if (error) {
    return ErrnoStatus(error.value(), StrCat("listing ", directory));
  }
  return FsyncDir(directory);
}

Result<int64_t> FillAndRename(const std::string& temporary,
                              const std::string& target,
                              Manifest manifest,
                              const std::function<Status(const std::string&)>& write) {
  MFT_RETURN_IF_ERROR(MakeDirs(JoinPath(temporary, "state")));
  MFT_RETURN_IF_ERROR(write(temporary));
  MFT_ASSIGN_OR_RETURN(const auto files, FilesBelow(temporary));
  int64_t bytes = 0;
  for (const std::string& file : files) {
    MFT_ASSIGN_OR_RETURN(ManifestFile entry, HashFile(temporary, file));
    bytes += entry.size;
    manifest.files.push_back(std::move(entry));
  }
  const std::string text = ManifestToJson(manifest);
  MFT_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(temporary, kManifestPath), text));
  MFT_RETURN_IF_ERROR(SyncTree(temporary));
  if (rename(temporary.c_str(), target.c_str()) != 0) {
    return ErrnoStatus(errno, StrCat("renaming ", temporary, " to ", target));
  }
  MFT_RETURN_IF_ERROR(FsyncDir(fs::path(target).parent_path().string()));
  return bytes + static_cast<int64_t>(text.size());
}
}  // namespace

std::string CheckpointsDir(const std::string& run_dir) {
  return JoinPath(run_dir, "checkpoints");
}

std::string CheckpointDir(const std::string& run_dir, int64_t step) {
  std::string digits = std::to_string(step);
  digits.insert(0, digits.size() < 6 ? 6 - digits.size() : 0, '0');
  return JoinPath(CheckpointsDir(run_dir), StrCat(kPrefix, digits));
}

Result<int64_t> PublishCheckpoint(
    const std::string& run_dir,
    Manifest manifest,
    const std::function<Status(const std::string& directory)>& write) {
  const std::string target = CheckpointDir(run_dir, manifest.step);
  if (PathExists(target)) {
    return AlreadyExists(StrCat(target, " is already there"));
  }
  MFT_RETURN_IF_ERROR(MakeDirs(CheckpointsDir(run_dir)));
  const std::string temporary = JoinPath(CheckpointsDir(run_dir), StrCat("tmp.", RandomHex(6)));
  auto bytes = FillAndRename(temporary, target, std::move(manifest), write);
  if (!bytes.ok()) {
    // Best effort: a leftover is deleted by the next scan.
    static_cast<void>(!RemoveTree(temporary).ok());
  }
  return bytes;
}

Result<Manifest> ReadManifest(const std::string& checkpoint_dir) {
  const std::string path = JoinPath(checkpoint_dir, kManifestPath);
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxManifestBytes));
  const auto parse = [&]() -> Result<Manifest> {
    MFT_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
    Manifest manifest;
    MFT_ASSIGN_OR_RETURN(const int64_t version, GetInt(json, "version"));
    if (version != manifest.version) {
      return InvalidArgument(
          StrCat("version ", version, ", this build reads version ", manifest.version));
    }
    MFT_ASSIGN_OR_RETURN(manifest.step, GetInt(json, "step"));
    manifest.attempt = static_cast<int>(IntOr(json, "attempt", 0));
    manifest.job_id = StringOr(json, "job_id", "");
    manifest.plan = json.value("plan", Json::object());
    for (const Json& entry : json.value("files", Json::array())) {
      ManifestFile file;
      MFT_ASSIGN_OR_RETURN(file.path, GetString(entry, "path"));
      MFT_ASSIGN_OR_RETURN(file.size, GetInt(entry, "size"));
      MFT_ASSIGN_OR_RETURN(file.sha256, GetString(entry, "sha256"));
      const fs::path relative(file.path);
      if (relative.is_absolute() || relative.lexically_normal().string().starts_with("..")) {
        return InvalidArgument(
            StrCat("file \"", Printable(file.path, 120), "\" is outside the checkpoint"));
      }
      manifest.files.push_back(std::move(file));
    }
    return manifest;
  };
  auto manifest = parse();
  return manifest.ok() ? std::move(manifest)
                       : Result<Manifest>(Status(Code::kDataLoss,
                                                 StrCat(path, ": ", manifest.status().message())));
}

Status VerifyCheckpoint(const std::string& checkpoint_dir) {
  MFT_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(checkpoint_dir));
  if (manifest.files.empty()) {
    return DataLoss(StrCat(checkpoint_dir, ": the manifest names no files"));
  }
  for (const ManifestFile& expected : manifest.files) {
    MFT_ASSIGN_OR_RETURN(const ManifestFile found, HashFile(checkpoint_dir, expected.path));
    if (found.size != expected.size || found.sha256 != expected.sha256) {
      return DataLoss(StrCat(JoinPath(checkpoint_dir, expected.path),
                             ": ",
                             found.size,
                             " bytes with sha256 ",
                             found.sha256,
                             ", the manifest says ",
                             expected.size,
                             " and ",
                             expected.sha256));
    }
  }
  return Status::Ok();
}

Result<CheckpointScan> ScanCheckpoints(const std::string& run_dir, const std::string& attempt_id) {
  CheckpointScan scan;
  const std::string directory = CheckpointsDir(run_dir);
  if (!PathExists(directory)) {
    return scan;
  }
  MFT_ASSIGN_OR_RETURN(const auto names, ListDir(directory));
  for (const std::string& name : names) {
    const std::string path = JoinPath(directory, name);
    if (name.starts_with("tmp.")) {
      MFT_RETURN_IF_ERROR(RemoveTree(path));
      continue;
    }
    const int64_t step = StepOf(name);
    if (step < 0) {
      continue;
    }
    Status status = VerifyCheckpoint(path);
    if (status.ok() && ReadManifest(path)->step != step) {
      status = DataLoss(StrCat("its manifest is of step ", ReadManifest(path)->step));
    }
    if (status.ok()) {
      scan.good.push_back(step);
      continue;
    }
    const std::string bad = StrCat(path, ".bad-", attempt_id);
    if (rename(path.c_str(), bad.c_str()) != 0) {
      return ErrnoStatus(errno, StrCat("renaming ", path, " to ", bad));
    }
    scan.renamed.push_back(StrCat(name, " -> ", name, ".bad-", attempt_id, ": ", status.message()));
  }
  MFT_RETURN_IF_ERROR(FsyncDir(directory));
  std::sort(scan.good.begin(), scan.good.end());
  return scan;
}

std::vector<int64_t> ListCheckpointSteps(const std::string& run_dir) {
  std::vector<int64_t> steps;
  const auto names = ListDir(CheckpointsDir(run_dir));
  if (names.ok()) {
    for (const std::string& name : *names) {
      if (StepOf(name) >= 0) {
        steps.push_back(StepOf(name));
      }
    }
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::vector<std::string> RemoveOldCheckpoints(const std::string& run_dir, int64_t keep) {
  std::vector<std::string> removed;
  const auto steps = ListCheckpointSteps(run_dir);
  const auto count = static_cast<int64_t>(steps.size());
  for (int64_t i = 0; keep > 0 && i < count - keep; ++i) {
    const std::string path = CheckpointDir(run_dir, steps[static_cast<size_t>(i)]);
    // Renamed first: a deletion that is cut off leaves a tmp.* that the next scan removes, never
    // half a checkpoint.
    const std::string dying = JoinPath(CheckpointsDir(run_dir), StrCat("tmp.", RandomHex(6)));
    if (rename(path.c_str(), dying.c_str()) == 0 && RemoveTree(dying).ok()) {
      removed.push_back(fs::path(path).filename().string());
    }
  }
  return removed;
}

}  // namespace mft
