// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"
#include "common/journal/record.h"

namespace mft {

// Something in a journal that is no record in order: a bad whole line, or a jump in `seq`. Reading
// goes on after it.
struct JournalDamage {
  int64_t offset = 0;  // of the first line
  std::string detail;  // what is wrong with it
  int64_t lines = 0;   // bad ones in a row; 0: records are missing
};

struct TailedItem {
  std::variant<Record, JournalDamage> item;
  int64_t end_offset = 0;  // of the line: store this with what the item caused
};

// Where a reader stands in a journal; stored with the events (durability.md, "Journals").
struct JournalPosition {
  int64_t offset = 0;
  int64_t last_seq = 0;
};

// Reads a growing journal from a stored position. Threads: one at a time.
class JournalTailer {
 public:
  JournalTailer(std::string path, JournalPosition position)
      : path_(std::move(path)), position_(position) {}

  // Whole lines from here on, at most about `max_bytes` of them; a torn last line is left for the
  // next call. A missing file and one shorter than the position have nothing new. NULs at the end
  // (a tail that was lost with the power) count as torn.
  // `*more` is set if there is more to read at once.
  Result<std::vector<TailedItem>> Read(size_t max_bytes, bool* more);

  const JournalPosition& position() const { return position_; }
  const std::string& path() const { return path_; }

 private:
  void Take(std::string_view line, std::vector<TailedItem>& items);
  void Damaged(int64_t begin, std::string detail, std::vector<TailedItem>& items);

  std::string path_;
  JournalPosition position_;
  bool in_long_line_ = false;  // skipping a line longer than any record
};

}  // namespace mft
