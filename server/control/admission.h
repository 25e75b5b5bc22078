// SPDX-License-Identifier: Apache-2.0
// The files of a job that is about to be accepted.
#pragma once

#include <functional>
#include <string>

#include "common/base/status.h"
#include "common/config/job_file.h"
#include "server/control/run_dir.h"

namespace mft::server {

struct AdmissionTask {
  std::string job_dir;
  JobFile file;
  std::string wandb_key;  // a secret, for the file that `file.secret` names; "": none
  RunDirClaim claim;
  bool check_only = false;  // validate_only: creates nothing
};

// Claims run_dir and makes the secret and job.json durable. Nothing stays behind after a failure.
// Blocks on the disk.
Status Admit(const AdmissionTask& task);

// Takes back what Admit made, for a job that was not committed; best effort.
void UndoAdmission(const std::string& job_dir, const RunDirClaim& claim);

// Where a job's secret lies in the state directory (JobFile::secret).
std::string SecretName(const std::string& job_id);
// A job that has ended needs it no more. It is no error if there is none.
Status RemoveSecret(const std::string& state_dir, const std::string& job_id);
// At the start: `job_id` says whether the job may still need its own.
Status RemoveSecretsExcept(const std::string& state_dir,
                           const std::function<bool(const std::string& job_id)>& needed);

}  // namespace mft::server
