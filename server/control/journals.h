// SPDX-License-Identifier: Apache-2.0
// The journals of an attempt as the control loop reads them: a share at a time, and only as far as
// committed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/journal/tailer.h"
#include "server/control/changes.h"

namespace mft::server {

// One journal file. A read moves ahead; Accept keeps that once the transaction is durable, Rewind
// goes back. Threads: the control thread's.
class JournalCursor {
 public:
  // `rank`: kRunnerRank for the runner's journal.
  JournalCursor(const std::string& attempt_dir, std::string file, int rank);

  const std::string& file() const { return file_; }
  // Where an earlier daemon stopped.
  void Resume(JournalPosition position);
  // Applies whole records of about `max_bytes` (nothing if that is 0) and sets the journal's offset
  // in the same transaction; returns the bytes read. Texts of error messages are appended to
  // `errors`.
  size_t Read(const std::string& attempt_id,
              Changes& changes,
              size_t max_bytes,
              std::vector<std::string>& errors);
  // The last read found nothing more than, at most, an unfinished line.
  bool at_end() const { return at_end_; }
  void Accept() { committed_ = tailer_.position(); }
  void Rewind();

 private:
  std::string file_;
  int rank_;
  JournalTailer tailer_;
  JournalPosition committed_;
  bool at_end_ = false;
  bool unreadable_ = false;
};

}  // namespace mft::server
