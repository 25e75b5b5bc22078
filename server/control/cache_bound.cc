// SPDX-License-Identifier: Apache-2.0
#include "server/control/cache_bound.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include <spdlog/spdlog.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/dataset/token_cache.h"

namespace mft::server {

namespace {

constexpr size_t kKeyDigits = 64;

struct Cache {
  std::string path;
  int64_t bytes = 0;
  int64_t used_micros = 0;
};

Result<Cache> Measure(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, path);
  }
  constexpr int64_t kMicros = 1'000'000, kNanosPerMicro = 1'000;
  Cache cache{.path = path,
              .used_micros = info.st_mtim.tv_sec * kMicros + info.st_mtim.tv_nsec / kNanosPerMicro};
  MFT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(path));
  for (const std::string& name : names) {
    MFT_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(JoinPath(path, name)));
    cache.bytes += bytes;
  }
  return cache;
}

bool IsCacheName(const std::string& name) {
  return name.size() == kKeyDigits &&
         name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

void Count(const Cache& removed, int64_t max_bytes, CacheUse& use) {
  use.caches -= 1;
  use.bytes -= removed.bytes;
  use.removed += 1;
  use.removed_bytes += removed.bytes;
  spdlog::info("removed the token cache {} ({}): the caches are larger than {}",
               removed.path,
               FormatBytes(removed.bytes),
               FormatBytes(max_bytes));
}

}  // namespace

Result<CacheUse> BoundTokenCaches(const std::string& cache_root, const CacheBound& bound) {
  MFT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(cache_root));
  std::vector<Cache> caches;
  CacheUse use;
  for (const std::string& name : names) {
    const Result<Cache> cache =
        IsCacheName(name) ? Measure(JoinPath(cache_root, name)) : NotFound(name);
    if (cache.ok()) {  // else it is none, or went away meanwhile
      caches.push_back(*cache);
      use.caches += 1;
      use.bytes += cache->bytes;
    }
  }
  std::sort(caches.begin(), caches.end(), [](const Cache& a, const Cache& b) {
    return a.used_micros < b.used_micros;
  });
  for (const Cache& cache : caches) {
    if (use.bytes <= bound.max_bytes) {
      break;
    }
    if (bound.in_use.contains(cache.path)) {
      continue;
    }
    const Result<bool> gone = TakeTokenCacheAway(cache.path, [&] {
      const Result<Cache> now = Measure(cache.path);  // a preparation may have just found it
      return !now.ok() || now->used_micros >= bound.keep_since_micros;
    });
    if (!gone.ok()) {
      spdlog::warn("token caches: {}", gone.status().ToString());
    } else if (*gone) {
      Count(cache, bound.max_bytes, use);
    }
  }
  MFT_RETURN_IF_ERROR(RemoveStaleTokenCaches(cache_root));
  return use;
}

void TouchTokenCache(const std::string& path) {
  // Best effort: at worst the cache goes earlier and is made again.
  utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
}

}  // namespace mft::server
