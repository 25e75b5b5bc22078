// SPDX-License-Identifier: Apache-2.0
#include "server/control/cache_bound.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <vector>

#include <spdlog/spdlog.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/dataset/token_cache_format.h"

namespace mft::server {

namespace {

constexpr int64_t kMinAgeMicros = int64_t{3600} * 1'000'000;
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

// Nobody ever sees half a cache: it loses its name first. What a daemon that was killed meanwhile
// leaves is removed by the next preparation, as what a killed writer leaves. Who has mapped it
// keeps its pages.
Status Remove(const std::string& cache_root, const std::string& path) {
  const std::string gone = JoinPath(
      cache_root,
      StrCat(token_cache_format::kTemporaryPrefix, "gone.", path.substr(path.rfind('/') + 1)));
  if (std::rename(path.c_str(), gone.c_str()) != 0) {
    return ErrnoStatus(errno, StrCat("renaming ", path, " to ", gone));
  }
  return RemoveTree(gone);
}

bool IsCacheName(const std::string& name) {
  return name.size() == kKeyDigits &&
         name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

Status BoundTokenCaches(const std::string& cache_root,
                        int64_t max_bytes,
                        const std::set<std::string>& in_use,
                        int64_t now_micros) {
  MFT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(cache_root));
  std::vector<Cache> caches;
  int64_t total_bytes = 0;
  for (const std::string& name : names) {
    const Result<Cache> cache =
        IsCacheName(name) ? Measure(JoinPath(cache_root, name)) : NotFound(name);
    if (cache.ok()) {  // else it is none, or went away meanwhile
      caches.push_back(*cache);
      total_bytes += cache->bytes;
    }
  }
  std::sort(caches.begin(), caches.end(), [](const Cache& a, const Cache& b) {
    return a.used_micros < b.used_micros;
  });
  for (const Cache& cache : caches) {
    if (total_bytes <= max_bytes) {
      break;
    }
    if (in_use.contains(cache.path) || cache.used_micros > now_micros - kMinAgeMicros) {
      continue;
    }
    MFT_RETURN_IF_ERROR(Remove(cache_root, cache.path));
    total_bytes -= cache.bytes;
    spdlog::info("removed the token cache {} ({}): the caches are larger than {}",
                 cache.path,
                 FormatBytes(cache.bytes),
                 FormatBytes(max_bytes));
  }
  return Status::Ok();
}

void TouchTokenCache(const std::string& path) {
  // Best effort: at worst the cache goes earlier and is made again.
  utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
}

}  // namespace mft::server
