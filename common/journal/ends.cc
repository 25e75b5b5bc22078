// SPDX-License-Identifier: Apache-2.0
#include "common/journal/ends.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/files.h"
#include "common/base/strings.h"

namespace mft {

namespace {

Result<std::string> ReadAt(int fd, off_t offset, size_t size, const std::string& path) {
  std::string bytes(size, '\0');
  const ssize_t got = pread(fd, bytes.data(), bytes.size(), offset);
  if (got < 0) {
    return ErrnoStatus(errno, StrCat("reading ", path));
  }
  bytes.resize(static_cast<size_t>(got));
  return bytes;
}

Result<int64_t> WholeBytes(int fd, const std::string& path) {
  off_t end = lseek(fd, 0, SEEK_END);
  if (end < 0) {
    return ErrnoStatus(errno, path);
  }
  constexpr off_t kChunk = 64 * 1024;
  while (end > 0) {
    const off_t begin = std::max<off_t>(0, end - kChunk);
    MFT_ASSIGN_OR_RETURN(const std::string bytes,
                         ReadAt(fd, begin, static_cast<size_t>(end - begin), path));
    const size_t newline = bytes.rfind('\n');
    if (newline != std::string::npos) {
      return int64_t{begin} + static_cast<int64_t>(newline) + 1;
    }
    end = begin;
  }
  return int64_t{0};
}

// Line by line from the end.
std::optional<Record> LastRecord(std::string_view tail, bool begins_with_a_line) {
  size_t end = tail.rfind('\n');
  while (end != std::string_view::npos) {
    const size_t before = end == 0 ? std::string_view::npos : tail.rfind('\n', end - 1);
    if (before == std::string_view::npos && !begins_with_a_line) {
      return std::nullopt;
    }
    const size_t begin = before == std::string_view::npos ? 0 : before + 1;
    auto record = DecodeRecord(tail.substr(begin, end - begin));
    if (record.ok()) {
      return std::move(record).value();
    }
    end = before;
  }
  return std::nullopt;
}

}  // namespace

Result<JournalEnds> ReadJournalEnds(const std::string& path) {
  JournalEnds ends;
  const auto fd = OpenFile(path, O_RDONLY);
  if (!fd.ok()) {
    return fd.status().code() == Code::kNotFound ? Result<JournalEnds>(ends) : fd.status();
  }
  constexpr int64_t kWindow = 4 * (kMaxRecordBytes + 1);
  MFT_ASSIGN_OR_RETURN(ends.whole_bytes, WholeBytes(fd->get(), path));
  MFT_ASSIGN_OR_RETURN(const std::string head, ReadAt(fd->get(), 0, kMaxRecordBytes + 1, path));
  const size_t newline = head.find('\n');
  if (newline != std::string::npos) {
    const auto first = DecodeRecord(std::string_view(head).substr(0, newline));
    if (first.ok() && std::holds_alternative<HeaderRecord>(first->body)) {
      ends.header = std::get<HeaderRecord>(first->body);
    }
  }
  const int64_t begin = std::max<int64_t>(0, ends.whole_bytes - kWindow);
  MFT_ASSIGN_OR_RETURN(
      const std::string tail,
      ReadAt(fd->get(), begin, static_cast<size_t>(ends.whole_bytes - begin), path));
  ends.last = LastRecord(tail, begin == 0);
  return ends;
}

}  // namespace mft
