// SPDX-License-Identifier: Apache-2.0
// Pseudo-random order that can be computed at any position, without a table.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

namespace mft {

// One 64-bit key from several numbers, each of which matters (SplitMix64's finaliser, chained).
uint64_t MixKey(std::initializer_list<uint64_t> parts);

// A permutation of [0, size): an eight-round Feistel network over the smallest even number of bits
// that covers `size`, walked until it lands inside. The order is part of what a seed means:
// changing it changes every run. Threads: const calls are safe from any thread.
class KeyedPermutation {
 public:
  KeyedPermutation(uint64_t key, int64_t size);
  int64_t operator()(int64_t position) const;  // REQUIRES: 0 <= position < size
  int64_t size() const { return size_; }

 private:
  std::array<uint64_t, 8> round_keys_;
  int64_t size_;
  int half_bits_;
};

}  // namespace mft
