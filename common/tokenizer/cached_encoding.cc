// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/cached_encoding.h"

namespace mft {

namespace {
// What an encoding may leave behind, in bytes.
constexpr size_t kKeptScratch = size_t{1} << 20;
}  // namespace

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
  std::shared_ptr<PieceCache> cache;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      item = std::move(idle_.back());
      idle_.pop_back();
    }
    cache = cache_;
  }
  if (item == nullptr) {
    item = std::make_unique<CachedEncoding>(std::move(cache));
  }
  return {*this, std::move(item)};
}

void PieceCachePool::Return(std::unique_ptr<CachedEncoding> item) {
  const std::lock_guard lock(mutex_);
  if (item->cache() == cache_ && cache_->full()) {
    cache_ = std::make_shared<PieceCache>();
    idle_.clear();
  }
  if (item->cache() == cache_) {
    idle_.push_back(std::move(item));
  }
}

}  // namespace mft
