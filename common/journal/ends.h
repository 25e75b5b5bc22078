// SPDX-License-Identifier: Apache-2.0
// The two records of a journal that say whose it is and how it ended, without reading what is
// between them.
#pragma once

#include <optional>
#include <string>

#include "common/base/status.h"
#include "common/journal/record.h"

namespace mft {

struct JournalEnds {
  std::optional<HeaderRecord> header;
  std::optional<Record> last;  // the last of the last whole lines that is a record
  // Up to and with the last newline; what stands behind it is torn, or NULs after a power cut.
  int64_t whole_bytes = 0;
};

// A missing or empty journal has neither.
Result<JournalEnds> ReadJournalEnds(const std::string& path);

}  // namespace mft
