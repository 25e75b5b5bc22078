// SPDX-License-Identifier: Apache-2.0
#include "server/control/run_dir.h"

#include <unistd.h>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "server/exec/attempt_dir.h"

namespace mft::server {

namespace {

constexpr int kOwnerVersion = 1;
constexpr size_t kMaxOwnerBytes = size_t{64} << 10;

std::string OwnerPath(const RunDirClaim& claim) {
  return JoinPath(claim.run_dir, kRunDirOwnerName);
}

Status InUse(std::string message) {
  return {Code::kAlreadyExists, "RUN_DIR_IN_USE", std::move(message)};
}

Status CheckOwner(const RunDirClaim& claim) {
  const Result<std::string> text = ReadFile(OwnerPath(claim), kMaxOwnerBytes);
  if (!text.ok()) {
    return text.status().code() == Code::kNotFound ? Status::Ok() : text.status();
  }
  const Result<Json> owner = ParseJson(*text);
  if (!owner.ok() || !owner->is_object()) {
    return InUse(
        StrCat(OwnerPath(claim),
               ": cannot be read, so nobody knows whose run_dir this is; choose another one"));
  }
  const std::string job_id = StringOr(*owner, "job_id", "");
  const std::string state_dir = StringOr(*owner, "state_dir", "");
  const bool foreign = !state_dir.empty() && state_dir != claim.state_dir;
  if (foreign && IsDirectory(JoinPath(JoinPath(state_dir, "jobs"), job_id))) {
    return InUse(StrCat("run_dir ",
                        claim.run_dir,
                        " belongs to job ",
                        job_id,
                        " of the daemon with state in ",
                        state_dir));
  }
  return Status::Ok();
}

// Of a daemon that was killed while it wrote its claim.
void RemoveLeftovers(const RunDirClaim& claim) {
  const Result<std::vector<std::string>> names = ListDir(claim.run_dir);
  if (!names.ok()) {
    return;
  }
  for (const std::string& name : *names) {
    if (name.starts_with(StrCat(kRunDirOwnerName, ".tmp."))) {
      unlink(JoinPath(claim.run_dir, name).c_str());
    }
  }
}

}  // namespace

Status CheckRunDir(const RunDirClaim& claim) {
  if (!PathExists(claim.run_dir)) {
    return Status::Ok();
  }
  MFT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(claim.run_dir));
  for (const std::string& name : names) {
    if (!name.starts_with(kRunDirOwnPrefix)) {
      return InUse(StrCat("run_dir ",
                          claim.run_dir,
                          " is not empty (it has ",
                          Printable(name, 80),
                          "); choose another one or empty it"));
    }
  }
  return CheckOwner(claim);
}

Status ClaimRunDir(const RunDirClaim& claim) {
  MFT_RETURN_IF_ERROR(CheckRunDir(claim).WithContext("run_dir"));
  MFT_RETURN_IF_ERROR(MakeDurableDirs(claim.run_dir).WithContext("run_dir"));
  RemoveLeftovers(claim);
  const Json owner = {
      {"version", kOwnerVersion}, {"job_id", claim.job_id}, {"state_dir", claim.state_dir}};
  return WriteFileAtomic(OwnerPath(claim), DumpJson(owner) + "\n").WithContext("run_dir");
}

void ReleaseRunDir(const RunDirClaim& claim) {
  unlink(OwnerPath(claim).c_str());
  rmdir(claim.run_dir.c_str());  // stays if it was there before with something in it
}

}  // namespace mft::server
