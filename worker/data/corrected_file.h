// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace mft::data {

// Publishes PATH.corrected, the lines of the file at `path` without `bad_lines` (from 0,
// ascending), and returns its path. A file that was there before is replaced. FAILED_PRECONDITION
// where the file has fewer lines than it had.
Result<std::string> WriteCorrectedFile(const std::string& path,
                                       const std::vector<int64_t>& bad_lines);

}  // namespace mft::data
