// SPDX-License-Identifier: Apache-2.0
#include "server/exec/patient_lock.h"

#include <chrono>
#include <thread>

namespace mft::server {

namespace {
constexpr int kTries = 50;
constexpr int kPauseMs = 10;
}  // namespace

Result<UniqueFd> LockFilePatiently(const std::string& path) {
  for (int tries = 0; tries < kTries; ++tries) {
    Result<UniqueFd> lock = TryLockFile(path, 0600);
    if (!lock.ok() || lock->valid()) {
      return lock;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(kPauseMs));
  }
  return UniqueFd();
}

}  // namespace mft::server
