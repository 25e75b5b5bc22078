// SPDX-License-Identifier: Apache-2.0
#include "server/control/admission.h"

#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <vector>

#include <spdlog/spdlog.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "server/exec/attempt_dir.h"

namespace mft::server {

namespace {

constexpr std::string_view kSecrets = "secrets";

Status WriteSecret(const AdmissionTask& task) {
  if (task.wandb_key.empty()) {
    return Status::Ok();
  }
  const std::string& state_dir = task.claim.state_dir;
  MFT_RETURN_IF_ERROR(MakeDurableDirs(JoinPath(state_dir, kSecrets), 0700));
  return WriteFileAtomic(JoinPath(state_dir, task.file.secret), task.wandb_key, 0600);
}

}  // namespace

Status Admit(const AdmissionTask& task) {
  if (task.check_only) {
    return CheckRunDir(task.claim);
  }
  MFT_RETURN_IF_ERROR(ClaimRunDir(task.claim));
  Status status = WriteSecret(task);
  if (status.ok()) {
    status = MakeDurableDirs(task.job_dir, 0700);
  }
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
  if (const Status status = RemoveSecret(claim.state_dir, claim.job_id); !status.ok()) {
    spdlog::error("job {}: {}", claim.job_id, status.ToString());
  }
  ReleaseRunDir(claim);
}

std::string SecretName(const std::string& job_id) {
  return JoinPath(kSecrets, job_id);
}

Status RemoveSecret(const std::string& state_dir, const std::string& job_id) {
  const std::string path = JoinPath(state_dir, SecretName(job_id));
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, path);
  }
  return Status::Ok();
}

Status RemoveSecretsExcept(const std::string& state_dir,
                           const std::function<bool(const std::string& job_id)>& needed) {
  const std::string directory = JoinPath(state_dir, kSecrets);
  if (!IsDirectory(directory)) {
    return Status::Ok();
  }
  MFT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(directory));
  for (const std::string& name : names) {
    if (!needed(name)) {
      MFT_RETURN_IF_ERROR(RemoveSecret(state_dir, name));
    }
  }
  return Status::Ok();
}

}  // namespace mft::server
