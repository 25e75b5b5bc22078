// SPDX-License-Identifier: Apache-2.0
// A run_dir belongs to one job and to one living attempt at a time (durability.md, "run_dir").
#pragma once

#include <string>
#include <utility>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft {

// Holds `<run_dir>/.mft.lock` while it lives.
class RunDir {
 public:
  // Makes the directory if needed, takes the lock, and checks or writes `.mft.json`, which names
  // the job ("" for stand-alone runs). ALREADY_EXISTS (RUN_DIR_IN_USE): another attempt lives, the
  // directory is another job's, or it is not empty and nobody's.
  static Result<RunDir> Open(const std::string& path, const std::string& job_id);
  const std::string& path() const { return path_; }

 private:
  RunDir(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  UniqueFd lock_;
};

}  // namespace mft
