// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/piece_cache.h"

#include <algorithm>

#include "common/base/status.h"

namespace mft {

namespace {
// What an encoding may leave behind, in bytes.
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
  } else {
    InsertIn(large_, key, ids);
  }
}

std::string_view CachedEncoding::Begin(std::string_view prefix, std::string_view text) {
  text_.assign(prefix).append(text).append(PieceCache::kSlackBytes, '\0');
  const std::string_view whole(text_.data(), prefix.size() + text.size());
  if (ids_.size() < whole.size() + PieceCache::kSlackIds) {
    ids_.resize(whole.size() + PieceCache::kSlackIds);
  }
  end_ = ids_.data();
  return whole;
}

void CachedEncoding::End(std::vector<int32_t>& out) {
  out.insert(out.end(), ids_.data(), end_);
  if (text_.capacity() > kKeptScratch) {
    text_ = std::string();
  }
  if (ids_.capacity() * sizeof(int32_t) > kKeptScratch) {
    ids_ = std::vector<int32_t>();
  }
}

PieceCachePool::Lease PieceCachePool::Take() {
  std::unique_ptr<CachedEncoding> item;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      item = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  return {*this, item == nullptr ? std::make_unique<CachedEncoding>() : std::move(item)};
}

void PieceCachePool::Return(std::unique_ptr<CachedEncoding> item) {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(item));
}

}  // namespace mft
