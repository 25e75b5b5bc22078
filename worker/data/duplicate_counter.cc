// SPDX-License-Identifier: Apache-2.0
#include "worker/data/duplicate_counter.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace mft::data {
namespace {

constexpr size_t kFirstSlots = 1024;

uint64_t HashOf(std::string_view line) {
  const uint64_t hash = std::hash<std::string_view>{}(line);
  return hash == 0 ? 1 : hash;
}

}  // namespace

DuplicateCounter::DuplicateCounter(size_t max_slots)
    : max_slots_(max_slots), slots_(std::min(max_slots, kFirstSlots)) {}

bool DuplicateCounter::Counts(uint64_t hash) const {
  return dropped_bits_ == 0 || hash >> (64 - dropped_bits_) == 0;
}

DuplicateCounter::Slot& DuplicateCounter::Find(uint64_t hash) {
  size_t at = hash & (slots_.size() - 1);
  while (slots_[at].hash != 0 && slots_[at].hash != hash) {
    at = (at + 1) & (slots_.size() - 1);
  }
  return slots_[at];
}

void DuplicateCounter::MakeRoom() {
  if (slots_.size() == max_slots_) {
    ++dropped_bits_;
  }
  std::vector<Slot> old(std::min(slots_.size() * 2, max_slots_));
  std::swap(slots_, old);
  used_ = 0;
  for (const Slot& slot : old) {
    if (slot.hash != 0 && Counts(slot.hash)) {
      Find(slot.hash) = slot;
      ++used_;
    }
  }
}

bool DuplicateCounter::Add(std::string_view line) {
  const uint64_t hash = HashOf(line);
  if (!Counts(hash)) {
    return false;
  }
  Slot& slot = Find(hash);
  if (slot.hash == hash) {
    ++slot.repeats;
    return true;
  }
  slot.hash = hash;
  ++used_;
  while (used_ >= slots_.size() / 4 * 3) {
    MakeRoom();
  }
  return false;
}

int64_t DuplicateCounter::duplicates() const {
  int64_t repeats = 0;
  for (const Slot& slot : slots_) {
    repeats += slot.repeats;
  }
  return repeats << dropped_bits_;
}

}  // namespace mft::data
