// SPDX-License-Identifier: Apache-2.0
#include "server/control/journals.h"

#include <spdlog/spdlog.h>

#include "common/base/files.h"
#include "server/control/apply_record.h"

namespace mft::server {

namespace {

constexpr size_t kMaxErrors = 3;
constexpr std::string_view kErrorLevel = "error";

void NoteError(const Record& record, std::vector<std::string>& errors) {
  const auto* message = std::get_if<MessageRecord>(&record.body);
  if (message != nullptr && message->level == kErrorLevel && errors.size() < kMaxErrors) {
    errors.push_back(message->text);
  }
}

}  // namespace

JournalCursor::JournalCursor(const std::string& attempt_dir, std::string file, int rank)
    : file_(std::move(file)), rank_(rank), tailer_(JoinPath(attempt_dir, file_), {}) {}

void JournalCursor::Resume(JournalPosition position) {
  committed_ = position;
  Rewind();
}

void JournalCursor::Rewind() {
  tailer_ = JournalTailer(tailer_.path(), committed_);
  at_end_ = false;
}

size_t JournalCursor::Read(const std::string& attempt_id,
                           Changes& changes,
                           size_t max_bytes,
                           std::vector<std::string>& errors) {
  at_end_ = false;
  if (max_bytes == 0) {
    return 0;
  }
  const int64_t begin = tailer_.position().offset;
  bool more = false;
  const Result<std::vector<TailedItem>> items = tailer_.Read(max_bytes, &more);
  at_end_ = !more;
  if (!items.ok()) {
    // What cannot be read is lost, and the attempt must be able to end without it.
    at_end_ = true;
    if (!unreadable_) {
      spdlog::error("journal {}: {}", tailer_.path(), items.status().ToString());
      ApplyDamage(changes, attempt_id, file_, JournalDamage{begin, items.status().message()});
    }
    unreadable_ = true;
    return 0;
  }
  for (const TailedItem& item : *items) {
    if (const auto* record = std::get_if<Record>(&item.item)) {
      NoteError(*record, errors);
      ApplyRecord(changes, attempt_id, rank_, *record);
    } else {
      ApplyDamage(changes, attempt_id, file_, std::get<JournalDamage>(item.item));
    }
  }
  const JournalPosition& end = tailer_.position();
  if (end.offset != begin) {
    changes.SetOffset(JournalOffset{
        .attempt_id = attempt_id, .file = file_, .offset = end.offset, .seq = end.last_seq});
  }
  return static_cast<size_t>(end.offset - begin);
}

}  // namespace mft::server
