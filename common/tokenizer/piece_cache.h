// SPDX-License-Identifier: Apache-2.0
// Remembers the token ids of short pieces of text, so that a word is merged once and then looked
// up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mft {

// A hash table of bounded size that forgets everything when it is full: the frequent pieces are
// back at once. At most 5 MiB.
// Threads: one at a time; see PieceCachePool.
class PieceCache {
 public:
  static constexpr size_t kMaxKeyBytes = 64;
  static constexpr size_t kMaxIds = 255;

  // Appends the ids of `key` (1 to kMaxKeyBytes) to `out`; false: they are not known.
  bool Append(std::string_view key, std::vector<int32_t>& out) const;
  // Remembers what Append did not know; at most kMaxIds of them.
  void Insert(std::string_view key, std::span<const int32_t> ids);

 private:
  // Pieces that anyone can choose may collide: a search ends after so many slots.
  static constexpr size_t kMaxProbes = 16;
  static constexpr size_t kSlots = size_t{1} << 17;
  static constexpr size_t kMaxEntries = kSlots / 4 * 3;
  static constexpr size_t kMaxWords = size_t{1} << 20;

  struct Slot {
    uint32_t tag = 0;
    uint32_t at = 0;  // of the entry in words_; 0: free
  };

  static uint64_t Hash(std::string_view key);
  bool Holds(uint32_t at, std::string_view key) const;

  std::vector<Slot> slots_;
  // An entry: key size | id count << 8, the ids, the key's bytes. In the order of insertion, so the
  // frequent ones share cache lines. [0] is not used.
  std::vector<uint32_t> words_;
  size_t entries_ = 0;
};

// Caches for any number of threads: each takes one for the length of a call, so none waits for
// another's search, and what they hold outlives the threads.
// Threads: safe.
class PieceCachePool {
 public:
  struct Item {
    PieceCache cache;
    std::string text;  // scratch space of the call
  };
  class Lease {
   public:
    Lease(PieceCachePool& pool, std::unique_ptr<Item> item) : pool_(pool), item_(std::move(item)) {}
    ~Lease() { pool_.Return(std::move(item_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Item* operator->() { return item_.get(); }

   private:
    PieceCachePool& pool_;
    std::unique_ptr<Item> item_;
  };

  Lease Take();

 private:
  void Return(std::unique_ptr<Item> item);

  std::mutex mutex_;
  std::vector<std::unique_ptr<Item>> idle_;  // guarded by mutex_; the last used one is last
};

}  // namespace mft
