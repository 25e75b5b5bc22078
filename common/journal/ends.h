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
  std::optional<Record> last;  // the last whole line that is a record
};

// A missing or empty journal has neither.
Result<JournalEnds> ReadJournalEnds(const std::string& path);

}  // namespace mft
