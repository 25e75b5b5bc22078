// SPDX-License-Identifier: Apache-2.0
// Checkpoints of a run: checkpoints/checkpoint_NNNNNN/{consolidated,state}, published by one rename
// after every file, the manifest and the directories are on disk (design.md 4.3, durability.md
// "Retries and readers").
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"

namespace mft {

struct ManifestFile {
  std::string path;  // relative to the checkpoint directory
  int64_t size = 0;
  std::string sha256;
};

struct Manifest {
  int version = 1;
  int64_t step = 0;
  int attempt = 0;
  std::string job_id;
  Json plan;  // the numeric plan (numerics.md): precision, threads, chunk sizes, CPU capability,
              // library versions
  std::vector<ManifestFile> files;
};

std::string CheckpointsDir(const std::string& run_dir);
std::string CheckpointDir(const std::string& run_dir, int64_t step);  // .../checkpoint_000100

// Calls `write` with a temporary directory beside the final one, then adds state/MANIFEST (sizes,
// sha256 of every file), syncs everything and renames. On failure the temporary directory is
// removed. Returns the bytes published. ALREADY_EXISTS if that step is there.
Result<int64_t> PublishCheckpoint(const std::string& run_dir,
                                  Manifest manifest,
                                  const std::function<Status(const std::string& directory)>& write);

Result<Manifest> ReadManifest(const std::string& checkpoint_dir);
// Reads every byte; DATA_LOSS names the first file that does not match.
Status VerifyCheckpoint(const std::string& checkpoint_dir);

struct CheckpointScan {
  std::vector<int64_t> good;         // steps, ascending
  std::vector<std::string> renamed;  // "checkpoint_000100 -> checkpoint_000100.bad-<attempt>: why"
};
// Before an attempt trains: verifies all, renames those that do not verify, deletes tmp.*.
Result<CheckpointScan> ScanCheckpoints(const std::string& run_dir, const std::string& attempt_id);

// Steps that are published, ascending; no verification.
std::vector<int64_t> ListCheckpointSteps(const std::string& run_dir);

// Keeps the newest `keep` (0: all); returns the names removed.
std::vector<std::string> RemoveOldCheckpoints(const std::string& run_dir, int64_t keep);

}  // namespace mft
