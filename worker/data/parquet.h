// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/base/status.h"

namespace mft::data {

// INVALID_ARGUMENT, with what to do, for a Parquet file (by its name's end or its first four
// bytes). Other files, also ones that cannot be read, are fine.
Status RefuseParquet(const std::string& path);

}  // namespace mft::data
