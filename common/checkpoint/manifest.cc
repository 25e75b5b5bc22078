// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/manifest.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"

namespace mft {

namespace {

constexpr size_t kMaxManifestBytes = size_t{16} << 20;

// A path that stays inside the checkpoint: no "..", no absolute one, no empty component.
bool IsInside(const std::string& path) {
  for (const std::string& part : Split(path, '/')) {
    if (part.empty() || part == "." || part == "..") {
      return false;
    }
  }
  return true;
}

Result<ManifestFile> FileFromJson(const Json& json) {
  ManifestFile file;
  MFT_ASSIGN_OR_RETURN(file.path, GetString(json, "path"));
  MFT_ASSIGN_OR_RETURN(file.size, GetInt(json, "size"));
  MFT_ASSIGN_OR_RETURN(file.sha256, GetString(json, "sha256"));
  if (!IsInside(file.path)) {
    return InvalidArgument(
        StrCat("path \"", Printable(file.path, 120), "\" leaves the checkpoint"));
  }
  return file;
}

Result<Manifest> FromJson(const Json& json) {
  Manifest manifest;
  MFT_ASSIGN_OR_RETURN(const int64_t version, GetInt(json, "version"));
  if (version != kManifestVersion) {
    return FailedPrecondition(StrCat(
        "version ", version, " was written by another release; this one reads ", kManifestVersion));
  }
  MFT_ASSIGN_OR_RETURN(manifest.step, GetInt(json, "step"));
  MFT_ASSIGN_OR_RETURN(const int64_t attempt, GetInt(json, "attempt"));
  manifest.attempt = static_cast<int>(attempt);
  MFT_ASSIGN_OR_RETURN(manifest.job_id, GetString(json, "job_id"));
  const auto plan = json.find("plan");
  const auto files = json.find("files");
  if (plan == json.end() || files == json.end() || !files->is_array()) {
    return InvalidArgument("needs \"plan\" and a list of \"files\"");
  }
  manifest.plan = *plan;
  std::set<std::string> paths;
  for (const Json& entry : *files) {
    MFT_ASSIGN_OR_RETURN(ManifestFile file, FileFromJson(entry));
    if (!paths.insert(file.path).second) {
      return InvalidArgument(StrCat("lists ", Printable(file.path, 120), " twice"));
    }
    manifest.files.push_back(std::move(file));
  }
  if (manifest.files.empty()) {
    return InvalidArgument("lists no files");
  }
  return manifest;
}

Status Mismatch(const std::string& path, const std::string& what) {
  return DataLoss(StrCat(path, ": ", what));
}

}  // namespace

std::string ManifestPath(const std::string& checkpoint_dir) {
  return JoinPath(checkpoint_dir, "state/MANIFEST");
}

std::string ManifestToJson(const Manifest& manifest) {
  Json files = Json::array();
  for (const ManifestFile& file : manifest.files) {
    files.push_back(Json{{"path", file.path}, {"size", file.size}, {"sha256", file.sha256}});
  }
  Json json = Json::object();
  json["version"] = manifest.version;
  json["step"] = manifest.step;
  json["attempt"] = manifest.attempt;
  json["job_id"] = manifest.job_id;
  json["plan"] = manifest.plan;
  json["files"] = std::move(files);
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<ManifestFile> DescribeFile(const std::string& checkpoint_dir, const std::string& relative) {
  const std::string path = JoinPath(checkpoint_dir, relative);
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, path);
  }
  if (!S_ISREG(info.st_mode)) {
    return DataLoss(StrCat(path, ": not a regular file"));
  }
  Sha256 hash;
  ManifestFile file{.path = relative, .size = 0, .sha256 = ""};
  std::string buffer(size_t{1} << 20, '\0');
  while (true) {
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return ErrnoStatus(errno, StrCat("reading ", path));
    }
    if (got == 0) {
      break;
    }
    hash.Update(std::string_view(buffer).substr(0, static_cast<size_t>(got)));
    file.size += got;
  }
  file.sha256 = hash.FinishHex();
  return file;
}

Result<Manifest> ReadManifest(const std::string& checkpoint_dir) {
  const std::string path = ManifestPath(checkpoint_dir);
  const auto text = ReadFile(path, kMaxManifestBytes);
  if (!text.ok()) {
    return text.status().code() == Code::kNotFound ? DataLoss(text.status().message())
                                                   : text.status();
  }
  const auto json = ParseJson(*text);
  auto manifest = json.ok() ? FromJson(*json) : Result<Manifest>(json.status());
  if (manifest.ok()) {
    return manifest;
  }
  const Status status = manifest.status().WithContext(path);
  return status.code() == Code::kInvalidArgument ? DataLoss(status.message()) : status;
}

Status VerifyCheckpoint(const std::string& checkpoint_dir) {
  MFT_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(checkpoint_dir));
  for (const ManifestFile& want : manifest.files) {
    const std::string path = JoinPath(checkpoint_dir, want.path);
    const auto got = DescribeFile(checkpoint_dir, want.path);
    if (!got.ok()) {
      // A link in place of a file, a file gone, or a disk that cannot read it: the data are lost.
      const Code code = got.status().code();
      const bool lost = code == Code::kNotFound || code == Code::kInvalidArgument ||
                        code == Code::kInternal || code == Code::kDataLoss;
      return lost ? DataLoss(got.status().message()) : got.status();
    }
    if (got->size != want.size) {
      return Mismatch(path, StrCat(got->size, " bytes, the manifest says ", want.size));
    }
    if (got->sha256 != want.sha256) {
      return Mismatch(path, StrCat("sha256 is ", got->sha256, ", the manifest says ", want.sha256));
    }
  }
  return Status::Ok();
}

}  // namespace mft
