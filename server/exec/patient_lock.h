// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft::server {

// TryLockFile with half a second of patience. A daemon that was killed while it started a runner
// leaves its locks with that child until the child's exec has closed them: a moment tells this from
// a second daemon. Blocks: for start-up only.
Result<UniqueFd> LockFilePatiently(const std::string& path);

}  // namespace mft::server
