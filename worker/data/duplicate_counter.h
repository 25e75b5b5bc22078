// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mft::data {

// Counts the lines that were there before, in bounded memory: hashes of 64 bits, 16 bytes a
// different line. Once the table is full, only lines whose hash begins with a zero bit count, then
// with two, and so on: from then on the count is an estimate. Threads: one at a time.
class DuplicateCounter {
 public:
  static constexpr size_t kMaxSlots = size_t{1} << 21;  // 32 MiB; exact up to 1.5 million lines

  // `max_slots`: a power of two.
  explicit DuplicateCounter(size_t max_slots = kMaxSlots);

  // Whether the line is known to have been there before.
  bool Add(std::string_view line);
  int64_t duplicates() const;
  bool exact() const { return dropped_bits_ == 0; }

 private:
  struct Slot {
    uint64_t hash = 0;  // 0: free
    int64_t repeats = 0;
  };
  bool Counts(uint64_t hash) const;
  Slot& Find(uint64_t hash);
  void MakeRoom();

  size_t max_slots_;
  std::vector<Slot> slots_;
  size_t used_ = 0;
  int dropped_bits_ = 0;
};

}  // namespace mft::data
