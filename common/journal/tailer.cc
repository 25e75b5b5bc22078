// SPDX-License-Identifier: Apache-2.0
#include "common/journal/tailer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/strings.h"

namespace mft {

void JournalTailer::Take(std::string_view line, std::vector<TailedItem>& items) {
  const int64_t begin = position_.offset;
  position_.offset += static_cast<int64_t>(line.size()) + 1;
  if (in_long_line_) {
    in_long_line_ = false;
    return;
  }
  auto record = DecodeRecord(line);
  if (!record.ok()) {
    items.push_back({JournalDamage{begin, record.status().message()}, position_.offset});
    return;
  }
  if (record->seq <= position_.last_seq) {
    items.push_back(
        {JournalDamage{begin, StrCat("record ", record->seq, " after record ", position_.last_seq)},
         position_.offset});
    return;
  }
  if (record->seq != position_.last_seq + 1) {
    items.push_back(
        {JournalDamage{
             begin,
             StrCat("records ", position_.last_seq + 1, " to ", record->seq - 1, " are missing")},
         begin});
  }
  position_.last_seq = record->seq;
  items.push_back({std::move(record).value(), position_.offset});
}

Result<std::vector<TailedItem>> JournalTailer::Read(size_t max_bytes, bool* more) {
  *more = false;
  std::vector<TailedItem> items;
  auto fd = OpenFile(path_, O_RDONLY);
  if (!fd.ok()) {
    return fd.status().code() == Code::kNotFound ? Result<std::vector<TailedItem>>(std::move(items))
                                                 : fd.status();
  }
  // A record must fit into one read, or a small budget would never get past a long line.
  std::string buffer(std::max(max_bytes, kMaxRecordBytes + 1), '\0');
  const ssize_t got = pread(fd->get(), buffer.data(), buffer.size(), position_.offset);
  if (got < 0) {
    return ErrnoStatus(errno, StrCat("reading ", path_));
  }
  std::string_view rest(buffer.data(), static_cast<size_t>(got));
  const bool full = rest.size() == buffer.size();
  while (true) {
    const size_t newline = rest.find('\n');
    if (newline == std::string_view::npos) {
      break;
    }
    Take(rest.substr(0, newline), items);
    rest.remove_prefix(newline + 1);
  }
  if (rest.size() > kMaxRecordBytes) {
    if (!in_long_line_) {
      items.push_back({JournalDamage{position_.offset,
                                     StrCat("a line longer than ", kMaxRecordBytes, " bytes")},
                       position_.offset + static_cast<int64_t>(rest.size())});
    }
    in_long_line_ = true;
    position_.offset += static_cast<int64_t>(rest.size());
  }
  *more = full;
  return items;
}

}  // namespace mft
