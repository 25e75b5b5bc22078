// SPDX-License-Identifier: Apache-2.0
// Keeps the token caches within their bound.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "common/base/status.h"

namespace mft::server {

struct CacheBound {
  int64_t max_bytes = 0;              // of all caches together
  std::set<std::string> in_use = {};  // paths that stay
  int64_t keep_since_micros = 0;      // wall clock: what was used since then stays
};

struct CacheUse {
  int64_t caches = 0;
  int64_t bytes = 0;
  int64_t removed = 0;  // caches of this call
  int64_t removed_bytes = 0;
};

// Removes the token caches in `cache_root` that were not used for longest until they are within
// the bound; what is in use, also by a process that has it open, stays. Then what killed processes
// left there. A job that misses its cache later prepares its data again. Blocks on the disk.
Result<CacheUse> BoundTokenCaches(const std::string& cache_root, const CacheBound& bound);

// Notes that a cache is used now.
void TouchTokenCache(const std::string& path);

}  // namespace mft::server
