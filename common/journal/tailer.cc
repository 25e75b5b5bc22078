// SPDX-License-Identifier: Apache-2.0
#include "common/journal/tailer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

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
    Damaged(begin, record.status().message(), items);
    return;
  }
  if (record->seq <= position_.last_seq) {
    Damaged(begin, StrCat("record ", record->seq, " after record ", position_.last_seq), items);
    return;
  }
  if (record->seq != position_.last_seq + 1) {
    items.push_back(
        {JournalDamage{
             .offset = begin,
             .detail = StrCat(
                 "records ", position_.last_seq + 1, " to ", record->seq - 1, " are missing"),
             .lines = 0},
         begin});
  }
  position_.last_seq = record->seq;
  items.push_back({std::move(record).value(), position_.offset});
}

// Bad lines in a row are one damage: a process that runs amok must not become a million events.
void JournalTailer::Damaged(int64_t begin, std::string detail, std::vector<TailedItem>& items) {
  JournalDamage* last = items.empty() ? nullptr : std::get_if<JournalDamage>(&items.back().item);
  if (last != nullptr && items.back().end_offset == begin) {
    ++last->lines;
    items.back().end_offset = position_.offset;
    return;
  }
  items.push_back(
      {JournalDamage{.offset = begin, .detail = std::move(detail), .lines = 1}, position_.offset});
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
  if (!in_long_line_ && rest.find_first_not_of('\0') == std::string_view::npos) {
    // The end, or a tail that was lost with the power; read on only if something came before it.
    *more = full && rest.size() < buffer.size();
    return items;
  }
  if (rest.size() > kMaxRecordBytes) {
    const int64_t begin = position_.offset;
    position_.offset += static_cast<int64_t>(rest.size());
    if (!std::exchange(in_long_line_, true)) {
      Damaged(begin, StrCat("a line longer than ", kMaxRecordBytes, " bytes"), items);
    }
  }
  *more = full;
  return items;
}

}  // namespace mft
