// SPDX-License-Identifier: Apache-2.0
#include "worker/train/run_dir.h"

#include <string_view>
#include <vector>

#include "common/base/json.h"
#include "common/base/strings.h"

namespace mft {

namespace {
constexpr std::string_view kOwnerName = ".mft.json";
constexpr std::string_view kLockName = ".mft.lock";
constexpr int kOwnerVersion = 1;
constexpr size_t kMaxOwnerBytes = size_t{64} << 10;

Status InUse(std::string message) {
  return {Code::kAlreadyExists, "RUN_DIR_IN_USE", std::move(message)};
}

std::string Described(const std::string& job_id) {
  return job_id.empty() ? std::string("a stand-alone run") : StrCat("job ", job_id);
}

Status CheckOwner(const std::string& path,
                  const std::string& owner_text,
                  const std::string& job_id) {
  const auto owner = ParseJson(owner_text);
  const auto owner_id =
      owner.ok() ? GetString(*owner, "job_id") : Result<std::string>(owner.status());
  if (!owner_id.ok()) {
    return InUse(StrCat("run_dir ",
                        path,
                        ": ",
                        kOwnerName,
                        " cannot be read (",
                        owner_id.status().message(),
                        "), so nobody knows whose it is"));
  }
  if (*owner_id != job_id) {
    return InUse(StrCat("run_dir ",
                        path,
                        " belongs to ",
                        Described(*owner_id),
                        ", not to ",
                        Described(job_id),
                        "; choose another run_dir"));
  }
  return Status::Ok();
}

Status Claim(const std::string& path, const std::string& owner_path, const std::string& job_id) {
  MFT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(path));
  for (const std::string& name : names) {
    if (name != kLockName) {
      return InUse(StrCat("run_dir ",
                          path,
                          " is not empty (it has ",
                          Printable(name, 80),
                          "); choose another one or empty it"));
    }
  }
  const Json owner = {{"version", kOwnerVersion}, {"job_id", job_id}};
  return WriteFileAtomic(owner_path, DumpJson(owner) + "\n");
}
}  // namespace

Result<RunDir> RunDir::Open(const std::string& path, const std::string& job_id) {
  MFT_RETURN_IF_ERROR(MakeDirs(path).WithContext("run_dir"));
  auto lock = TryLockFile(JoinPath(path, kLockName));
  if (!lock.ok()) {
    return lock.status().WithContext("run_dir");
  }
  if (!lock->valid()) {
    return InUse(StrCat("run_dir ", path, " is in use by a process that is still running"));
  }
  const std::string owner_path = JoinPath(path, kOwnerName);
  const auto owner = ReadFile(owner_path, kMaxOwnerBytes);
  if (owner.ok()) {
    MFT_RETURN_IF_ERROR(CheckOwner(path, *owner, job_id));
  } else if (owner.status().code() == Code::kNotFound) {
    MFT_RETURN_IF_ERROR(Claim(path, owner_path, job_id));
  } else {
    return owner.status().WithContext("run_dir");
  }
  return RunDir(path, std::move(*lock));
}

}  // namespace mft
