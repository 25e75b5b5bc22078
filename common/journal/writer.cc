// SPDX-License-Identifier: Apache-2.0
#include "common/journal/writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/journal/ends.h"

namespace mft {

namespace {

Status CheckContinues(const JournalEnds& ends,
                      const HeaderRecord& header,
                      const std::string& path) {
  if (!ends.header || !ends.last) {
    return DataLoss(StrCat(path, ": has lines, but no header or no record at its end"));
  }
  if (ends.header->attempt_id != header.attempt_id || ends.header->rank != header.rank) {
    return FailedPrecondition(StrCat(path,
                                     ": belongs to rank ",
                                     ends.header->rank,
                                     " of attempt ",
                                     Printable(ends.header->attempt_id, 80),
                                     ", not to rank ",
                                     header.rank,
                                     " of ",
                                     header.attempt_id));
  }
  return Status::Ok();
}

// Only how the attempt goes on and ends is written to a journal that has grown beyond all measure.
bool IsEssential(const RecordBody& body) {
  return !std::holds_alternative<StepRecord>(body) && !std::holds_alternative<EvalRecord>(body) &&
         !std::holds_alternative<MessageRecord>(body);
}

}  // namespace

Result<std::unique_ptr<JournalWriter>> JournalWriter::Open(const std::string& path,
                                                           HeaderRecord header,
                                                           const Clock& clock) {
  MFT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_APPEND));
  MFT_ASSIGN_OR_RETURN(const JournalEnds ends, ReadJournalEnds(path));
  const bool is_new = ends.whole_bytes == 0;
  if (!is_new) {
    MFT_RETURN_IF_ERROR(CheckContinues(ends, header, path));
  }
  std::unique_ptr<JournalWriter> writer(new JournalWriter(
      path, std::move(fd), is_new ? 1 : ends.last->seq + 1, ends.whole_bytes, clock));
  MFT_RETURN_IF_ERROR(writer->CutBack());
  if (is_new) {
    MFT_RETURN_IF_ERROR(writer->Append(std::move(header)));
  }
  return writer;
}

Status JournalWriter::CutBack() {
  if (ftruncate(fd_.get(), size_) != 0) {
    return ErrnoStatus(errno, StrCat("cutting ", path_, " back to its last newline"));
  }
  torn_ = false;
  return Status::Ok();
}

Status JournalWriter::Append(RecordBody body) {
  if (torn_) {
    MFT_RETURN_IF_ERROR(CutBack());
  }
  if (size_ >= kMaxJournalBytes && !IsEssential(body)) {
    return Status::Ok();
  }
  const std::string line =
      EncodeRecord({.seq = next_seq_, .at_micros = clock_.WallMicros(), .body = std::move(body)}) +
      "\n";
  ssize_t written = 0;
  do {
    written = write(fd_.get(), line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written != static_cast<ssize_t>(line.size())) {
    const Status status = ErrnoStatus(written < 0 ? errno : ENOSPC, StrCat("writing ", path_));
    torn_ = true;
    LogIfError(CutBack(), "a journal with a torn line");
    return status;
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
  if (!entry_synced_) {
    const std::string directory = std::filesystem::path(path_).parent_path().string();
    MFT_RETURN_IF_ERROR(FsyncDir(directory.empty() ? "." : directory));
    entry_synced_ = true;
  }
  return Status::Ok();
}

}  // namespace mft
