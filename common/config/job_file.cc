// SPDX-License-Identifier: Apache-2.0
#include "common/config/job_file.h"

#include <utility>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/config/versioned_json.h"
#include "common/config/yaml_reader.h"

namespace mft {

namespace {
Result<JobFile> JobFromJson(const Json& json) {
  JobFile file;
  MFT_ASSIGN_OR_RETURN(file.job_id, GetString(json, "job_id"));
  MFT_ASSIGN_OR_RETURN(file.owner, GetString(json, "owner"));
  MFT_ASSIGN_OR_RETURN(file.request_id, GetString(json, "request_id"));
  MFT_ASSIGN_OR_RETURN(file.request_hash, GetString(json, "request_hash"));
  MFT_ASSIGN_OR_RETURN(file.created_micros, GetInt(json, "created_micros"));
  file.secret = StringOr(json, "secret", "");
  const auto spec = json.find("spec");
  if (spec == json.end()) {
    return InvalidArgument("missing \"spec\"");
  }
  JobSpecResult result = ParseJobJson(*spec);
  if (!result.violations.empty()) {
    const Violation& first = result.violations.front();
    return InvalidArgument(StrCat("spec: ", first.path, ": ", first.message));
  }
  file.spec = std::move(result.spec);
  return file;
}
}  // namespace

std::vector<std::string> TrackersOf(const JobSpec& spec) {
  std::vector<std::string> trackers;
  if (!spec.wandb.project.empty()) {
    trackers.emplace_back("wandb");
  }
  if (!spec.mlflow.tracking_uri.empty()) {
    trackers.emplace_back("mlflow");
  }
  return trackers;
}

Result<JobFile> ReadJobFile(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(const Json json, ReadVersionedJson(path));
  auto file = JobFromJson(json);
  return file.ok() ? std::move(file) : file.status().WithContext(path);
}

Status WriteJobFile(const std::string& path, const JobFile& file) {
  Json json = Json::object();
  json["version"] = kJobFileVersion;
  json["job_id"] = file.job_id;
  json["owner"] = file.owner;
  json["request_id"] = file.request_id;
  json["request_hash"] = file.request_hash;
  json["created_micros"] = file.created_micros;
  if (!file.secret.empty()) {
    json["secret"] = file.secret;
  }
  json["spec"] = JobSpecToJson(file.spec);
  return WriteFileAtomic(path, DumpJson(json) + "\n");
}

}  // namespace mft
