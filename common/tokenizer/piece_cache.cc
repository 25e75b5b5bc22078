// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/piece_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "common/base/status.h"

namespace mft {

void PieceCache::Unmap::operator()(void* memory) const {
  munmap(memory, bytes);
}

PieceCache::Memory PieceCache::ZeroedMemory(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::bad_alloc();
  }
  // Searches go everywhere: with small pages many would wait for the page table. Only a wish.
  madvise(memory, bytes, MADV_HUGEPAGE);
  return {memory, Unmap{bytes}};
}

template <typename S>
bool PieceCache::InsertIn(const Slots<S>& slots,
                          std::string_view text,
                          std::span<const int32_t> ids) {
  // Of no key: none has that size.
  constexpr uint64_t kBeingWritten = UINT64_MAX;
  const typename S::Key key = S::MakeKey(text);
  const size_t home = S::Hash(key);
  for (size_t probe = 0; probe < kMaxProbes; ++probe) {
    S& slot = slots[home ^ probe];
    uint64_t last = 0;
    if (slot.last().compare_exchange_strong(last, kBeingWritten, std::memory_order_acquire)) {
      std::copy(key.begin(), key.end() - 1, slot.key.begin());
      std::copy(ids.begin(), ids.end(), slot.ids.begin());
      slot.last().store(key.back() | uint64_t{ids.size()} << 56, std::memory_order_release);
      return true;
    }
    if (slot.Holds(key, last)) {
      return true;  // another thread was faster
    }
  }
  return false;
}

void PieceCache::Insert(std::string_view key, std::span<const int32_t> ids) {
  MFT_CHECK(!key.empty() && key.size() <= kMaxKeyBytes, "a piece of bad size");
  if (ids.empty() || ids.size() > Large::kMaxIds) {
    return;
  }
  const bool small = key.size() <= Small::kKeyBytes && ids.size() <= Small::kMaxIds;
  if (!(small ? InsertIn(small_, key, ids) : InsertIn(large_, key, ids))) {
    left_out_.fetch_add(1, std::memory_order_relaxed);
  }
}

}  // namespace mft
