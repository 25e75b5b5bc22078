// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/base/status.h"

namespace mft::data {

// Publishes PATH.corrected, the lines of the file at `path` without those that `bad_lines` (by
// line, ends with the last bad one) marks, and returns its path. A file that was there before is
// replaced. FAILED_PRECONDITION where the file has fewer lines than it had.
Result<std::string> WriteCorrectedFile(const std::string& path, const std::vector<bool>& bad_lines);

}  // namespace mft::data
