// SPDX-License-Identifier: Apache-2.0
// Keeps the token caches within their bound.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "common/base/status.h"

namespace mft::server {

// Removes the token caches in `cache_root` that were not used for longest until they take at most
// `max_bytes` together. Stay: those `in_use` (paths), and those younger than an hour at
// `now_micros` (wall clock), whose preparation may not have been heard of yet. A job that misses
// its cache later prepares its data again. Blocks on the disk.
Status BoundTokenCaches(const std::string& cache_root,
                        int64_t max_bytes,
                        const std::set<std::string>& in_use,
                        int64_t now_micros);

// Notes that a cache is used now.
void TouchTokenCache(const std::string& path);

}  // namespace mft::server
