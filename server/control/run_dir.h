// SPDX-License-Identifier: Apache-2.0
// A run_dir belongs to one job: .mft.json in it says to which.
#pragma once

#include <string>
#include <string_view>

#include "common/base/status.h"

namespace mft::server {

// mftd's own names (.mft.json, the attempts' .mft.lock) make no run_dir "not empty".
inline constexpr std::string_view kRunDirOwnPrefix = ".mft.";
inline constexpr std::string_view kRunDirOwnerName = ".mft.json";

// Who wants a run_dir. That no unfinished job of this daemon has it is checked before.
struct RunDirClaim {
  std::string run_dir;
  std::string job_id;
  std::string state_dir;  // of the claiming daemon
};

// ALREADY_EXISTS (RUN_DIR_IN_USE) if the directory holds anything that is not mftd's own (.mft.*),
// or if it belongs to a job that another daemon still has. A job that failed before it wrote
// anything leaves a claim that may be taken over, so that the same job file can be submitted again.
// Creates nothing.
Status CheckRunDir(const RunDirClaim& claim);

// CheckRunDir, then makes the directory and writes .mft.json, durable.
Status ClaimRunDir(const RunDirClaim& claim);

// Takes back a claim whose job never came to be; best effort.
void ReleaseRunDir(const RunDirClaim& claim);

}  // namespace mft::server
