// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/global_order.h"

#include "common/base/status.h"
#include "common/base/strings.h"

namespace mft {
namespace {

// Few halves of few bits give few round functions, so that a handful of samples would only see a
// handful of orders.
constexpr int kMinHalfBits = 4;

// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
uint64_t Mix64(uint64_t z) {
  z += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

uint64_t MixKey(std::initializer_list<uint64_t> parts) {
  uint64_t key = 0;
  for (const uint64_t part : parts) {
    key = Mix64(key ^ Mix64(part));
  }
  return key;
}

KeyedPermutation::KeyedPermutation(uint64_t key, int64_t size)
    : size_(size), half_bits_(kMinHalfBits) {
  MFT_CHECK(size >= 0 && size <= int64_t{1} << 60, StrCat("permutation of ", size));
  while (size > int64_t{1} << (2 * half_bits_)) {
    ++half_bits_;
  }
  for (uint64_t round = 0; round < round_keys_.size(); ++round) {
    round_keys_[round] = MixKey({key, round});
  }
}

int64_t KeyedPermutation::operator()(int64_t position) const {
  MFT_CHECK(position >= 0 && position < size_, StrCat(position, " of ", size_));
  const uint64_t half_mask = (uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<uint64_t>(position);
  do {
    uint64_t left = value >> half_bits_;
    uint64_t right = value & half_mask;
    for (const uint64_t round_key : round_keys_) {
      const uint64_t next = left ^ (Mix64(round_key ^ right) & half_mask);
      left = right;
      right = next;
    }
    value = left << half_bits_ | right;
  } while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

}  // namespace mft
