// SPDX-License-Identifier: Apache-2.0
#include "worker/data/data_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/base/files.h"
#include "common/base/ids.h"
#include "common/base/strings.h"
#include "worker/data/parquet.h"

namespace mft::data {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;

int64_t ModifiedNanos(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

Status AppendSources(const std::string& text, SourceKind kind, std::vector<DataFiles>& all) {
  MFT_ASSIGN_OR_RETURN(const std::vector<DataSource> sources, ParseSources(text));
  for (const DataSource& source : sources) {
    MFT_ASSIGN_OR_RETURN(DataFiles files, ListSourceFiles(source, kind));
    all.push_back(std::move(files));
  }
  return Status::Ok();
}

}  // namespace

Result<DataFiles> ListSourceFiles(const DataSource& source, SourceKind kind) {
  MFT_ASSIGN_OR_RETURN(const std::vector<std::string> paths, ExpandSource(source));
  DataFiles files = {.path = source.path, .kind = kind, .weight = source.weight, .files = {}};
  for (const std::string& path : paths) {
    MFT_RETURN_IF_ERROR(RefuseParquet(path));
    files.files.push_back({.path = path, .hash = {}});
  }
  return files;
}

Result<std::vector<DataFiles>> ListDataFiles(const JobSpec& spec) {
  std::vector<DataFiles> all;
  MFT_RETURN_IF_ERROR(AppendSources(spec.data.data, SourceKind::kText, all));
  MFT_RETURN_IF_ERROR(AppendSources(spec.data.instruct_data, SourceKind::kInstruct, all));
  if (!spec.no_eval) {
    MFT_RETURN_IF_ERROR(AppendSources(spec.data.eval_instruct_data, SourceKind::kEval, all));
  }
  return all;
}

Status HashDataFile(DataFile& file, const std::function<bool()>& stopped) {
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(file.path, O_RDONLY | O_NONBLOCK));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, file.path);
  }
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument(StrCat(file.path, ": not a regular file"));
  }
  Sha256 hash;
  std::string buffer(kReadBytes, '\0');
  while (true) {
    if (stopped()) {
      return {Code::kCancelled, "stopped"};
    }
    const ssize_t count = read(fd.get(), buffer.data(), buffer.size());
    if (count < 0 && errno != EINTR) {
      return ErrnoStatus(errno, StrCat("reading ", file.path));
    }
    if (count == 0) {
      break;
    }
    hash.Update(std::string_view(buffer).substr(0, count > 0 ? count : 0));
  }
  file.hash = hash.FinishHex();
  file.bytes = info.st_size;
  file.modified_nanos = ModifiedNanos(info);
  return CheckUnchanged(file);
}

Status CheckUnchanged(const DataFile& file) {
  struct stat info {};
  if (stat(file.path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, file.path);
  }
  if (info.st_size != file.bytes || ModifiedNanos(info) != file.modified_nanos) {
    return FailedPrecondition(StrCat(file.path, ": changed while it was read"));
  }
  return Status::Ok();
}

}  // namespace mft::data
