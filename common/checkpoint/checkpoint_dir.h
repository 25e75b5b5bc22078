// SPDX-License-Identifier: Apache-2.0
// Checkpoints of a run: checkpoints/checkpoint_NNNNNN/{consolidated,state}, published by one rename
// after every file, the manifest and the directories are on disk. common/checkpoint/README.md has
// the layout. Threads: one at a time per run_dir; the run_dir lock keeps other processes away.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"

namespace mft {

inline constexpr int kManifestVersion = 1;

struct ManifestFile {
  std::string path;  // relative to the checkpoint directory
  int64_t size = 0;
  std::string sha256;
};

struct Manifest {
  int version = kManifestVersion;
  int64_t step = 0;
  int attempt = 0;
  std::string job_id;
  // The numeric plan: precision, threads, chunk sizes, CPU capability, library versions.
  Json plan = Json::object();
  std::vector<ManifestFile> files;
};

std::string CheckpointsDir(const std::string& run_dir);
std::string CheckpointDir(const std::string& run_dir, int64_t step);  // .../checkpoint_000100

// Calls `write` with a temporary directory beside the final one that has empty consolidated/ and
// state/ in it, then adds state/MANIFEST (sizes and sha256 of every file), syncs everything and
// renames. On failure, also by an exception of `write`, the temporary directory is removed.
// Returns the bytes published. ALREADY_EXISTS if that step is there; a full disk is
// RESOURCE_EXHAUSTED with errno's text.
Result<int64_t> PublishCheckpoint(const std::string& run_dir,
                                  Manifest manifest,
                                  const std::function<Status(const std::string& directory)>& write);

// DATA_LOSS: missing or malformed. FAILED_PRECONDITION: of another version.
Result<Manifest> ReadManifest(const std::string& checkpoint_dir);
// Reads every byte that the manifest lists; DATA_LOSS names the first file that does not match.
// Files that it does not list are not looked at.
Status VerifyCheckpoint(const std::string& checkpoint_dir);

struct CheckpointScan {
  std::vector<int64_t> good;         // steps, ascending
  std::vector<std::string> renamed;  // "checkpoint_000100 -> checkpoint_000100.bad-<attempt>: why"
};
// Before an attempt trains: verifies all, renames those that do not verify, deletes tmp.*.
// An error that says nothing about the data (permissions, another release) renames nothing.
Result<CheckpointScan> ScanCheckpoints(const std::string& run_dir, const std::string& attempt_id);

// Steps that are published, ascending; no verification.
std::vector<int64_t> ListCheckpointSteps(const std::string& run_dir);

// Keeps the newest `keep` by step (0: all) and that of step `best` (0: none); returns the names
// removed. One that cannot be removed is logged and stays.
std::vector<std::string> RemoveOldCheckpoints(const std::string& run_dir,
                                              int64_t keep,
                                              int64_t best = 0);

// Makes checkpoints/best, a relative link, lead to the checkpoint of `step`, in one step; writes
// nothing if it does already. With 0 a link is removed.
Status PointBestAt(const std::string& run_dir, int64_t step);
// The step that checkpoints/best leads to; 0: there is none, or its checkpoint is gone.
int64_t BestCheckpointStep(const std::string& run_dir);

}  // namespace mft
