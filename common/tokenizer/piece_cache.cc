// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/piece_cache.h"

#include <cstring>
#include <utility>

#include "common/base/status.h"

namespace mft {

namespace {
// What a call may leave behind in a pooled item.
constexpr size_t kKeptScratchBytes = size_t{1} << 16;

template <typename T>
uint64_t Load(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

// Both halves of the product: every bit of the factors reaches every bit of the result.
uint64_t Mix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}
}  // namespace

uint64_t PieceCache::Hash(std::string_view key) {
  constexpr uint64_t kFirst = 0x9E3779B97F4A7C15;
  constexpr uint64_t kSecond = 0xE7037ED1A0B428DB;
  const char* p = key.data();
  const size_t n = key.size();
  uint64_t h = kSecond ^ n;
  if (n >= 8) {
    for (size_t i = 0; i + 8 < n; i += 8) {
      h = Mix(h ^ Load<uint64_t>(p + i), kFirst);
    }
    return Mix(h ^ Load<uint64_t>(p + n - 8), kFirst);
  }
  if (n >= 4) {
    return Mix(h ^ (Load<uint32_t>(p) << 32 | Load<uint32_t>(p + n - 4)), kFirst);
  }
  return Mix(
      h ^ (Load<uint8_t>(p) << 16 | Load<uint8_t>(p + n / 2) << 8 | Load<uint8_t>(p + n - 1)),
      kFirst);
}

bool PieceCache::Holds(uint32_t at, std::string_view key) const {
  const uint32_t head = words_[at];
  return (head & 0xFF) == key.size() &&
         std::memcmp(&words_[at + 1 + (head >> 8)], key.data(), key.size()) == 0;
}

bool PieceCache::Append(std::string_view key, std::vector<int32_t>& out) const {
  if (slots_.empty()) {
    return false;
  }
  const uint64_t hash = Hash(key);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t probe = 0; probe < kMaxProbes; ++probe) {
    const Slot& slot = slots_[(hash + probe) % kSlots];
    if (slot.at == 0) {
      return false;
    }
    if (slot.tag == tag && Holds(slot.at, key)) {
      const size_t count = words_[slot.at] >> 8;
      const size_t size = out.size();
      out.resize(size + count);
      std::memcpy(out.data() + size, &words_[slot.at + 1], count * sizeof(int32_t));
      return true;
    }
  }
  return false;
}

void PieceCache::Insert(std::string_view key, std::span<const int32_t> ids) {
  MFT_CHECK(!key.empty() && key.size() <= kMaxKeyBytes && ids.size() <= kMaxIds,
            "a piece of bad size");
  const size_t key_words = (key.size() + 3) / 4;
  const size_t needed = 1 + ids.size() + key_words;
  if (entries_ >= kMaxEntries || words_.size() + needed > kMaxWords || slots_.empty()) {
    slots_.assign(kSlots, Slot());
    words_.reserve(kMaxWords);
    words_.assign(1, 0);
    entries_ = 0;
  }
  const uint64_t hash = Hash(key);
  // All taken: the first one gives way.
  size_t free = hash % kSlots;
  for (size_t probe = 0; probe < kMaxProbes; ++probe) {
    if (slots_[(hash + probe) % kSlots].at == 0) {
      free = (hash + probe) % kSlots;
      break;
    }
  }
  slots_[free] = {.tag = static_cast<uint32_t>(hash >> 32),
                  .at = static_cast<uint32_t>(words_.size())};
  ++entries_;
  words_.push_back(static_cast<uint32_t>(key.size() | ids.size() << 8));
  words_.insert(words_.end(), ids.begin(), ids.end());
  words_.resize(words_.size() + key_words);
  std::memcpy(words_.data() + words_.size() - key_words, key.data(), key.size());
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
  if (item->text.capacity() > kKeptScratchBytes) {
    item->text = std::string();
  }
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(item));
}

}  // namespace mft
