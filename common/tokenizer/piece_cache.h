// SPDX-License-Identifier: Apache-2.0
// Remembers the token ids of short pieces of text, so that a word is merged once.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

namespace mft {

// A hash table of bounded size whose slots are written once, so that all threads read and add
// without locks. Where a piece finds no free slot near its own it is left out; see full().
// Threads: safe.
class PieceCache {
 public:
  static constexpr size_t kMaxKeyBytes = 46;
  // Bytes that must be readable after the end of a key, whatever they are.
  static constexpr size_t kSlackBytes = 48;
  // Ids that must be writable from `out` on, beside one for each byte of the key.
  static constexpr size_t kSlackIds = 4;

  // 24 MiB, of which pages count that are in use; std::bad_alloc.
  PieceCache() : small_(kSmallSlots), large_(kLargeSlots) {}

  // Writes the ids of `key` (1 to kMaxKeyBytes) to `out` and returns the end of what is written;
  // nullptr: they are not known.
  int32_t* Find(std::string_view key, int32_t* out) const {
    if (key.size() <= Small::kKeyBytes) {
      if (int32_t* end = FindIn<Small>(small_, key, out)) {
        return end;
      }
    }
    return FindIn<Large>(large_, key, out);  // also short pieces of many ids
  }

  // Has the memory that Find will look at brought near. Most keys are small.
  void Prefetch(std::string_view key) const {
    if (key.size() <= Small::kKeyBytes) {
      __builtin_prefetch(&small_[Small::Hash(Small::MakeKey(key))]);
    }
  }

  // Remembers what Find did not know, unless it has more than 20 ids.
  void Insert(std::string_view key, std::span<const int32_t> ids);

  // Pieces that found no place have cost about what it takes to begin with an empty cache.
  bool full() const { return left_out_.load(std::memory_order_relaxed) > kSmallSlots / 2; }

 private:
  static constexpr size_t kSmallSlots = size_t{1} << 18;
  static constexpr size_t kLargeSlots = size_t{1} << 17;
  // Anyone can choose pieces that collide: a search ends after so many slots.
  static constexpr size_t kMaxProbes = 4;

  // The key's bytes, zeros, the key's size and the number of ids; a free slot is all zeros. The
  // last word of the key is written last, and read first: a slot that has it is complete and stays
  // so.
  template <size_t kWords, size_t kIds>
  struct Slot {
    static constexpr size_t kKeyBytes = kWords * 8 - 2;
    static constexpr size_t kMaxIds = kIds;
    using Key = std::array<uint64_t, kWords>;
    // By size: all ones where the key has bytes of the text.
    static constexpr std::array<Key, kKeyBytes + 1> kMasks = [] {
      std::array<Key, kKeyBytes + 1> masks{};
      for (size_t size = 0; size <= kKeyBytes; ++size) {
        for (size_t byte = 0; byte < size; ++byte) {
          masks[size][byte / 8] |= uint64_t{0xFF} << (8 * (byte % 8));
        }
      }
      return masks;
    }();
    static Key MakeKey(std::string_view text);
    static size_t Hash(const Key& key);
    std::atomic_ref<uint64_t> last() { return std::atomic_ref<uint64_t>(key[kWords - 1]); }
    // `last_word`: what last() was.
    bool Holds(const Key& wanted, uint64_t last_word) const;

    Key key{};
    std::array<int32_t, kIds> ids{};
  };
  // Most words with their space are Small: half a cache line.
  using Small = Slot<2, 4>;
  using Large = Slot<6, 20>;

  struct Unmap {
    size_t bytes;
    void operator()(void* memory) const;
  };
  using Memory = std::unique_ptr<void, Unmap>;
  // Zeros, which take pages as they are written.
  static Memory ZeroedMemory(size_t bytes);

  template <typename S>
  class Slots {
   public:
    explicit Slots(size_t count)  // a power of two
        : count_(count), memory_(ZeroedMemory(count * sizeof(S))) {}
    // The place of a hash, modulo their number.
    S& operator[](size_t hash) const { return static_cast<S*>(memory_.get())[hash & (count_ - 1)]; }

   private:
    size_t count_;
    Memory memory_;
  };

  template <typename S>
  static int32_t* FindIn(const Slots<S>& slots, std::string_view text, int32_t* out);
  // false: there is no place.
  template <typename S>
  static bool InsertIn(const Slots<S>& slots, std::string_view text, std::span<const int32_t> ids);

  Slots<Small> small_;
  Slots<Large> large_;
  std::atomic<size_t> left_out_ = 0;
};

template <size_t kWords, size_t kIds>
inline typename PieceCache::Slot<kWords, kIds>::Key PieceCache::Slot<kWords, kIds>::MakeKey(
    std::string_view text) {
  // All words at once and a mask for the size: sizes come in no order, so that branches on them
  // would cost more than the bytes.
  Key key;
  std::memcpy(key.data(), text.data(), sizeof(key));
  const Key& mask = kMasks[text.size()];
  for (size_t i = 0; i < kWords; ++i) {
    key[i] &= mask[i];
  }
  key[kWords - 1] |= uint64_t{text.size()} << 48;
  return key;
}

// Both halves of the products: every bit of the key reaches every bit of the hash.
template <size_t kWords, size_t kIds>
inline size_t PieceCache::Slot<kWords, kIds>::Hash(const Key& key) {
  __extension__ using Wide = unsigned __int128;
  uint64_t hash = 0;
  for (size_t i = 0; i < kWords; i += 2) {
    const Wide product =
        static_cast<Wide>(key[i] ^ hash ^ 0x9E3779B97F4A7C15) * (key[i + 1] ^ 0xE7037ED1A0B428DB);
    hash = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
  return static_cast<size_t>(hash);
}

template <size_t kWords, size_t kIds>
inline bool PieceCache::Slot<kWords, kIds>::Holds(const Key& wanted, uint64_t last_word) const {
  constexpr uint64_t kWithoutCount = (uint64_t{1} << 56) - 1;
  if (((last_word ^ wanted[kWords - 1]) & kWithoutCount) != 0) {
    return false;
  }
  uint64_t difference = 0;
  for (size_t i = 0; i + 1 < kWords; ++i) {
    difference |= key[i] ^ wanted[i];
  }
  return difference == 0;
}

template <typename S>
inline int32_t* PieceCache::FindIn(const Slots<S>& slots, std::string_view text, int32_t* out) {
  const typename S::Key key = S::MakeKey(text);
  const size_t home = S::Hash(key);
  for (size_t probe = 0; probe < kMaxProbes; ++probe) {
    S& slot = slots[home ^ probe];
    const uint64_t last = slot.last().load(std::memory_order_acquire);
    if (slot.Holds(key, last)) {
      const size_t count = last >> 56;
      constexpr size_t kAtOnce = 4;
      std::memcpy(out, slot.ids.data(), kAtOnce * sizeof(int32_t));
      if (count > kAtOnce) {
        std::memcpy(out + kAtOnce, &slot.ids[kAtOnce], (count - kAtOnce) * sizeof(int32_t));
      }
      return out + count;
    }
    if (last == 0) {
      return nullptr;
    }
  }
  return nullptr;
}

}  // namespace mft
