// SPDX-License-Identifier: Apache-2.0
#include "worker/data/corrected_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/dataset/line_reader.h"

namespace mft::data {
namespace {

constexpr size_t kWriteBytes = size_t{1} << 20;

Status CopyGoodLines(const std::string& path,
                     const std::vector<bool>& bad_lines,
                     const UniqueFd& out,
                     const std::string& out_path) {
  MFT_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
  size_t lines = 0;
  std::string buffer;
  DataLine line;
  while (true) {
    MFT_ASSIGN_OR_RETURN(const bool more, reader.Next(line));
    if (!more || buffer.size() >= kWriteBytes) {
      MFT_RETURN_IF_ERROR(WriteAll(out.get(), buffer, out_path));
      buffer.clear();
    }
    if (!more) {
      break;
    }
    const bool bad = lines < bad_lines.size() && bad_lines[lines];
    ++lines;
    if (!bad) {
      buffer.append(line.text).append("\n");
    }
  }
  if (lines < bad_lines.size()) {
    return FailedPrecondition(StrCat(path, ": changed while it was read"));
  }
  return Fsync(out.get(), out_path);
}

}  // namespace

Result<std::string> WriteCorrectedFile(const std::string& path,
                                       const std::vector<bool>& bad_lines) {
  const std::string corrected = path + ".corrected";
  const std::string temporary = StrCat(corrected, ".", getpid(), ".tmp");
  MFT_ASSIGN_OR_RETURN(const UniqueFd out, OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC));
  Status status = CopyGoodLines(path, bad_lines, out, temporary);
  if (status.ok() && std::rename(temporary.c_str(), corrected.c_str()) != 0) {
    status = ErrnoStatus(errno, StrCat("renaming ", temporary, " to ", corrected));
  }
  if (!status.ok()) {
    unlink(temporary.c_str());
    return status;
  }
  MFT_RETURN_IF_ERROR(FsyncDir(std::filesystem::path(AbsolutePath(corrected)).parent_path()));
  return corrected;
}

}  // namespace mft::data
