// SPDX-License-Identifier: Apache-2.0
// Texts to ids by way of a cache of pieces.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/tokenizer/piece_cache.h"

namespace mft {

// One text on its way to ids: parts that the cache knows are looked up, others encoded.
// Threads: one at a time; several may share a cache.
class CachedEncoding {
 public:
  explicit CachedEncoding(std::shared_ptr<PieceCache> cache) : cache_(std::move(cache)) {}
  const std::shared_ptr<PieceCache>& cache() const { return cache_; }

  // Starts anew with `prefix` and `text`, which are copied; the parts are parts of what it returns.
  std::string_view Begin(std::string_view prefix, std::string_view text);

  void Prefetch(std::string_view part) const { cache_->Prefetch(part); }

  // The next part. `encode` writes its ids, at most one a byte, and returns their end.
  template <typename Encode>
  void Add(std::string_view part, const Encode& encode) {
    if (part.size() > PieceCache::kMaxKeyBytes) {
      end_ = encode(end_);
      return;
    }
    int32_t* end = cache_->Find(part, end_);
    if (end == nullptr) {
      end = encode(end_);
      cache_->Insert(part, std::span(end_, end));
    }
    end_ = end;
  }

  // Appends the ids of all parts.
  void End(std::vector<int32_t>& out);

 private:
  std::shared_ptr<PieceCache> cache_;
  std::string text_;
  std::vector<int32_t> ids_;  // scratch space
  int32_t* end_ = nullptr;    // of what is written to ids_
};

// A cache that all threads share, and what each needs to encode with it, lent for the length of a
// call. A full cache is replaced by an empty one: the frequent pieces are soon there again, which
// those that fill it now may not be.
// Threads: safe.
class PieceCachePool {
 public:
  class Lease {
   public:
    Lease(PieceCachePool& pool, std::unique_ptr<CachedEncoding> item)
        : pool_(pool), item_(std::move(item)) {}
    ~Lease() { pool_.Return(std::move(item_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    CachedEncoding* operator->() { return item_.get(); }

   private:
    PieceCachePool& pool_;
    std::unique_ptr<CachedEncoding> item_;
  };

  Lease Take();

 private:
  void Return(std::unique_ptr<CachedEncoding> item);

  std::mutex mutex_;
  // Guarded by mutex_. All of idle_ are of cache_; the last used one is last.
  std::shared_ptr<PieceCache> cache_ = std::make_shared<PieceCache>();
  std::vector<std::unique_ptr<CachedEncoding>> idle_;
};

}  // namespace mft
