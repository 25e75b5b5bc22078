// SPDX-License-Identifier: Apache-2.0
// What job.json and attempt.json have in common.
#pragma once

#include <string>

#include "common/base/json.h"
#include "common/base/status.h"

namespace mft {

// Parses the file and checks its "version"; FAILED_PRECONDITION for another one than ours.
Result<Json> ReadVersionedJson(const std::string& path);

}  // namespace mft
