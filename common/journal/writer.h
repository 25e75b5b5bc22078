// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/files.h"
#include "common/base/status.h"
#include "common/journal/record.h"

namespace mft {

inline constexpr int64_t kMaxJournalBytes = int64_t{1} << 30;

// Appends numbered records to one journal file. Each is one write(2); after a failed or short one
// the file is cut back to its last newline, so that what readers see is always whole lines.
// Threads: one at a time.
class JournalWriter {
 public:
  // Opens or creates the journal; a new one gets `header` as its first record. An existing one is
  // continued: a torn last line is cut off and numbering goes on; FAILED_PRECONDITION if it is
  // another attempt's or rank's. `clock` must outlive the writer.
  static Result<std::unique_ptr<JournalWriter>> Open(const std::string& path,
                                                     HeaderRecord header,
                                                     const Clock& clock = SystemClock());

  // Beyond kMaxJournalBytes step, eval and message records are left out silently. A record that
  // could not be written takes no number: try again, or go on without it.
  Status Append(RecordBody body);
  // Append, then fdatasync: for checkpoint, final and result records.
  Status AppendSynced(RecordBody body);

  const std::string& path() const { return path_; }

 private:
  JournalWriter(std::string path, UniqueFd fd, int64_t next_seq, int64_t size, const Clock& clock)
      : path_(std::move(path)),
        fd_(std::move(fd)),
        next_seq_(next_seq),
        size_(size),
        clock_(clock) {}

  Status CutBack();

  std::string path_;
  UniqueFd fd_;
  int64_t next_seq_;
  int64_t size_;               // of the whole lines
  bool torn_ = false;          // a failed write left bytes behind size_ that could not be cut off
  bool entry_synced_ = false;  // the file's entry in its directory is on disk
  const Clock& clock_;
};

}  // namespace mft
