// SPDX-License-Identifier: Apache-2.0
#include "common/journal/writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/strings.h"

namespace mft {

namespace {
// Where to go on in an existing journal.
struct End {
  int64_t size = 0;
  int64_t last_seq = 0;
};

// Reads backwards from the end for the last whole line: at most one record's length is needed.
Result<End> FindEnd(int fd, const std::string& path) {
  const off_t file_size = lseek(fd, 0, SEEK_END);
  if (file_size < 0) {
    return ErrnoStatus(errno, path);
  }
  const auto window = std::min<off_t>(file_size, 2 * (static_cast<off_t>(kMaxRecordBytes) + 1));
  std::string tail(static_cast<size_t>(window), '\0');
  if (pread(fd, tail.data(), tail.size(), file_size - window) != window) {
    return ErrnoStatus(errno, StrCat("reading ", path));
  }
  const size_t last_newline = tail.rfind('\n');
  if (last_newline == std::string::npos) {
    return End{};
  }
  const size_t begin = last_newline == 0 ? std::string::npos : tail.rfind('\n', last_newline - 1);
  const size_t line_begin = begin == std::string::npos ? 0 : begin + 1;
  auto record = DecodeRecord(std::string_view(tail).substr(line_begin, last_newline - line_begin));
  if (!record.ok()) {
    return record.status().WithContext(StrCat(path, ": last line"));
  }
  return End{file_size - window + static_cast<off_t>(last_newline) + 1, record->seq};
}
}  // namespace

Result<std::unique_ptr<JournalWriter>> JournalWriter::Open(const std::string& path,
                                                           HeaderRecord header,
                                                           const Clock& clock) {
  MFT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_APPEND));
  MFT_ASSIGN_OR_RETURN(const End end, FindEnd(fd.get(), path));
  if (ftruncate(fd.get(), end.size) != 0) {
    return ErrnoStatus(errno, StrCat("cutting ", path));
  }
  std::unique_ptr<JournalWriter> writer(
      new JournalWriter(path, std::move(fd), end.last_seq + 1, end.size, clock));
  if (end.size == 0) {
    MFT_RETURN_IF_ERROR(writer->Append(std::move(header)));
  }
  return writer;
}

Status JournalWriter::Append(RecordBody body) {
  const std::string line =
      EncodeRecord({.seq = next_seq_, .at_micros = clock_.WallMicros(), .body = std::move(body)}) +
      "\n";
  ssize_t written = 0;
  do {
    written = write(fd_.get(), line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written != static_cast<ssize_t>(line.size())) {
    const int error_number = written < 0 ? errno : ENOSPC;
    if (ftruncate(fd_.get(), size_) != 0) {
      return ErrnoStatus(errno, StrCat("cutting ", path_, " back after a failed write"));
    }
    return ErrnoStatus(error_number, StrCat("writing ", path_));
  }
  size_ += written;
  ++next_seq_;
  return Status::Ok();
}

Status JournalWriter::AppendSynced(RecordBody body) {
  MFT_RETURN_IF_ERROR(Append(std::move(body)));
  if (fdatasync(fd_.get()) != 0) {
    return ErrnoStatus(errno, StrCat("fdatasync of ", path_));
  }
  return Status::Ok();
}

}  // namespace mft
