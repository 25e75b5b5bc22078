// SPDX-License-Identifier: Apache-2.0
// attempt.json apart from job.json: mft-runner reads only this and needs no YAML library.
#include <utility>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"
#include "common/config/versioned_json.h"

namespace mft {

namespace {
constexpr size_t kMaxJobFileBytes = size_t{4} << 20;

// Small integers of attempt.json, all required.
Status GetSmallInt(const Json& json, std::string_view key, int min, int& out) {
  MFT_ASSIGN_OR_RETURN(const int64_t value, GetInt(json, key));
  if (value < min || value > 1'000'000) {
    return InvalidArgument(
        StrCat("\"", key, "\" must be between ", min, " and 1000000, not ", value));
  }
  out = static_cast<int>(value);
  return Status::Ok();
}

Status GetTexts(const Json& json, std::string_view key, std::vector<std::string>& out) {
  const auto list = json.find(key);
  if (list == json.end() || !list->is_array()) {
    return InvalidArgument(StrCat("\"", key, "\" must be a list"));
  }
  for (const Json& text : *list) {
    if (!text.is_string()) {
      return InvalidArgument(StrCat("\"", key, "\" must hold text only"));
    }
    out.push_back(text.get<std::string>());
  }
  return Status::Ok();
}

Result<AttemptKind> ParseKind(const std::string& name) {
  for (const AttemptKind kind : {AttemptKind::kPrepare, AttemptKind::kTrain}) {
    if (AttemptKindName(kind) == name) {
      return kind;
    }
  }
  return InvalidArgument(
      StrCat("\"kind\" must be prepare or train, not \"", Printable(name, 80), "\""));
}

Result<AttemptFile> AttemptFromJson(const Json& json) {
  AttemptFile file;
  MFT_ASSIGN_OR_RETURN(file.attempt_id, GetString(json, "attempt_id"));
  MFT_ASSIGN_OR_RETURN(const std::string kind, GetString(json, "kind"));
  MFT_ASSIGN_OR_RETURN(file.kind, ParseKind(kind));
  MFT_ASSIGN_OR_RETURN(file.device, GetString(json, "device"));
  if (file.device != "cpu" && file.device != "cuda") {
    return InvalidArgument(
        StrCat("\"device\" must be cpu or cuda, not \"", Printable(file.device, 80), "\""));
  }
  MFT_RETURN_IF_ERROR(GetSmallInt(json, "attempt", 1, file.attempt));
  MFT_RETURN_IF_ERROR(GetSmallInt(json, "ranks", 1, file.ranks));
  MFT_RETURN_IF_ERROR(GetSmallInt(json, "threads", 1, file.threads));
  if (json.contains("ranks_per_node")) {  // not in one that waits in Slurm since a release ago
    MFT_RETURN_IF_ERROR(GetSmallInt(json, "ranks_per_node", 0, file.ranks_per_node));
    MFT_ASSIGN_OR_RETURN(file.srun, GetString(json, "srun"));
  }
  MFT_ASSIGN_OR_RETURN(file.cache_root, GetString(json, "cache_root"));
  MFT_ASSIGN_OR_RETURN(file.data_cache, GetString(json, "data_cache"));
  MFT_ASSIGN_OR_RETURN(file.grace_ms, GetInt(json, "grace_ms"));
  MFT_ASSIGN_OR_RETURN(file.time_limit_ms, GetInt(json, "time_limit_ms"));
  if (file.grace_ms < 0 || file.time_limit_ms < 0) {
    return InvalidArgument("\"grace_ms\" and \"time_limit_ms\" must not be negative");
  }
  MFT_RETURN_IF_ERROR(GetTexts(json, "gpu_uuids", file.gpu_uuids));
  MFT_RETURN_IF_ERROR(GetTexts(json, "trackers", file.trackers));
  MFT_ASSIGN_OR_RETURN(file.tracker_python, GetString(json, "tracker_python"));
  return file;
}

}  // namespace

Result<Json> ReadVersionedJson(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxJobFileBytes));
  auto json = ParseJson(text);
  if (!json.ok()) {
    return json.status().WithContext(path);
  }
  const auto version = GetInt(*json, "version");
  if (!version.ok()) {
    return version.status().WithContext(path);
  }
  if (*version != kJobFileVersion) {
    return FailedPrecondition(StrCat(path,
                                     ": version ",
                                     *version,
                                     " was written by another release; this one reads ",
                                     kJobFileVersion));
  }
  return std::move(json).value();
}

std::string_view AttemptKindName(AttemptKind kind) {
  switch (kind) {
    case AttemptKind::kPrepare:
      return "prepare";
    case AttemptKind::kTrain:
      return "train";
  }
  return "";
}

Result<AttemptFile> ReadAttemptFile(const std::string& path) {
  MFT_ASSIGN_OR_RETURN(const Json json, ReadVersionedJson(path));
  auto file = AttemptFromJson(json);
  return file.ok() ? std::move(file) : file.status().WithContext(path);
}

Status WriteAttemptFile(const std::string& path, const AttemptFile& file) {
  Json json = Json::object();
  json["version"] = kJobFileVersion;
  json["attempt"] = file.attempt;
  json["attempt_id"] = file.attempt_id;
  json["kind"] = AttemptKindName(file.kind);
  json["device"] = file.device;
  json["ranks"] = file.ranks;
  json["threads"] = file.threads;
  json["ranks_per_node"] = file.ranks_per_node;
  json["srun"] = file.srun;
  json["gpu_uuids"] = file.gpu_uuids;
  json["cache_root"] = file.cache_root;
  json["data_cache"] = file.data_cache;
  json["grace_ms"] = file.grace_ms;
  json["time_limit_ms"] = file.time_limit_ms;
  json["trackers"] = file.trackers;
  json["tracker_python"] = file.tracker_python;
  return WriteFileAtomic(path, DumpJson(json) + "\n");
}

}  // namespace mft
