// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/record_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "common/base/ids.h"
#include "common/base/strings.h"

namespace mft {

namespace {
using token_cache_format::Record;

std::string_view BytesOf(std::span<const Record> records) {
  return {reinterpret_cast<const char*>(records.data()), records.size_bytes()};
}

Status ReadAt(int fd, int64_t offset, std::span<Record> records, const std::string& name) {
  auto* to = reinterpret_cast<char*>(records.data());
  for (size_t done = 0; done < records.size_bytes();) {
    const ssize_t got = pread(
        fd, to + done, records.size_bytes() - done, static_cast<off_t>(offset + int64_t(done)));
    if (got == 0) {
      return DataLoss(StrCat(name, ": the list of samples ends early"));
    }
    if (got < 0 && errno != EINTR) {
      return ErrnoStatus(errno, StrCat("reading ", name));
    }
    done += static_cast<size_t>(std::max<ssize_t>(got, 0));
  }
  return Status::Ok();
}
}  // namespace

Status RecordFile::Spill() {
  if (!fd_.valid()) {
    const std::string path = JoinPath(directory_, StrCat("records.", RandomHex(8)));
    MFT_ASSIGN_OR_RETURN(fd_, OpenFile(path, O_RDWR | O_CREAT | O_EXCL, 0600));
    if (unlink(path.c_str()) != 0) {
      return ErrnoStatus(errno, StrCat("removing ", path));
    }
  }
  MFT_RETURN_IF_ERROR(WriteAll(fd_.get(), BytesOf(recent_), directory_));
  in_file_ += static_cast<int64_t>(recent_.size());
  recent_.clear();
  return Status::Ok();
}

Status RecordFile::Add(const Record& record) {
  recent_.push_back(record);
  return recent_.size() < kRecent ? Status::Ok() : Spill();
}

Status RecordFile::ForEachBlock(const std::function<Status(std::string_view bytes)>& block) {
  std::vector<Record> records;
  for (int64_t at = 0; at < in_file_; at += static_cast<int64_t>(records.size())) {
    records.resize(static_cast<size_t>(std::min<int64_t>(in_file_ - at, kRecent)));
    const auto offset = at * static_cast<int64_t>(sizeof(Record));
    MFT_RETURN_IF_ERROR(ReadAt(fd_.get(), offset, records, directory_));
    MFT_RETURN_IF_ERROR(block(BytesOf(records)));
  }
  return recent_.empty() ? Status::Ok() : block(BytesOf(recent_));
}

Status RecordFile::Clear() {
  recent_.clear();
  in_file_ = 0;
  if (fd_.valid() && (ftruncate(fd_.get(), 0) != 0 || lseek(fd_.get(), 0, SEEK_SET) != 0)) {
    return ErrnoStatus(errno, StrCat("emptying a list of samples in ", directory_));
  }
  return Status::Ok();
}

}  // namespace mft
