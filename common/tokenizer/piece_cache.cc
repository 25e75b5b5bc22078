// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/piece_cache.h"

#include <algorithm>

#include "common/base/status.h"

namespace mft {

namespace {
// What a call may leave behind in a pooled item, in bytes.
constexpr size_t kKeptScratch = size_t{1} << 20;
}  // namespace

template <typename S>
void PieceCache::InsertIn(std::vector<S>& slots,
                          std::string_view text,
                          std::span<const int32_t> ids) {
  if (ids.empty() || ids.size() > S::kMaxIds) {
    return;
  }
  typename S::Key key = S::MakeKey(text);
  const size_t home = S::Hash(key);
  // All taken: the first one gives way.
  size_t free = home & (slots.size() - 1);
  for (size_t probe = 0; probe < kMaxProbes; ++probe) {
    const size_t at = (home ^ probe) & (slots.size() - 1);
    if (slots[at].count() == 0) {
      free = at;
      break;
    }
  }
  key.back() |= uint64_t{ids.size()} << 56;
  slots[free].key = key;
  std::copy(ids.begin(), ids.end(), slots[free].ids.begin());
}

void PieceCache::Insert(std::string_view key, std::span<const int32_t> ids) {
  MFT_CHECK(!key.empty() && key.size() <= kMaxKeyBytes, "a piece of bad size");
  if (key.size() <= Small::kKeyBytes && ids.size() <= Small::kMaxIds) {
    InsertIn(small_, key, ids);
  } else if (key.size() > Small::kKeyBytes) {
    InsertIn(large_, key, ids);
  }
}

PieceCachePool::Lease PieceCachePool::Take() {
  std::unique_ptr<Item> item;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      item = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  return {*this, item == nullptr ? std::make_unique<Item>() : std::move(item)};
}

void PieceCachePool::Return(std::unique_ptr<Item> item) {
  if (item->text.capacity() > kKeptScratch) {
    item->text = std::string();
  }
  if (item->ids.capacity() * sizeof(int32_t) > kKeptScratch) {
    item->ids = std::vector<int32_t>();
  }
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(item));
}

}  // namespace mft
