// SPDX-License-Identifier: Apache-2.0
#include "server/control/admission.h"

#include <spdlog/spdlog.h>

#include "common/base/files.h"
#include "server/exec/attempt_dir.h"

namespace mft::server {

Status Admit(const AdmissionTask& task) {
  if (task.check_only) {
    return CheckRunDir(task.claim);
  }
  MFT_RETURN_IF_ERROR(ClaimRunDir(task.claim));
  Status status = MakeDurableDirs(task.job_dir, 0700);
  if (status.ok()) {
    status = WriteJobFile(JoinPath(task.job_dir, "job.json"), task.file);
  }
  if (!status.ok()) {
    UndoAdmission(task.job_dir, task.claim);
  }
  return status;
}

void UndoAdmission(const std::string& job_dir, const RunDirClaim& claim) {
  if (const Status status = RemoveTree(job_dir); !status.ok()) {
    spdlog::warn("job {} was not accepted and leaves files: {}", claim.job_id, status.ToString());
  }
  ReleaseRunDir(claim);
}

}  // namespace mft::server
