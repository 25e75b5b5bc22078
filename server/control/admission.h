// SPDX-License-Identifier: Apache-2.0
// The files of a job that is about to be accepted.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/config/job_file.h"
#include "server/control/run_dir.h"

namespace mft::server {

struct AdmissionTask {
  std::string job_dir;
  JobFile file;
  RunDirClaim claim;
  bool check_only = false;  // validate_only: creates nothing
};

// Claims run_dir and makes job.json durable. Nothing stays behind after a failure. Blocks on the
// disk.
Status Admit(const AdmissionTask& task);

// Takes back what Admit made, for a job that was not committed; best effort.
void UndoAdmission(const std::string& job_dir, const RunDirClaim& claim);

}  // namespace mft::server
