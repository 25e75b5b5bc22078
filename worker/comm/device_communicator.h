// SPDX-License-Identifier: Apache-2.0
// What ranks with a GPU each exchange of their devices' memory. (What they say to each other
// otherwise: communicator.h.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/status.h"

namespace mft {

struct DeviceCommOptions {
  int64_t rank = 0;
  int64_t world_size = 1;
  std::vector<std::byte> id;      // rank 0's, the same on every rank; of one communicator only
  int64_t meet_ms = 300'000;      // until all ranks have joined
  int64_t exchange_ms = 600'000;  // of one exchange, the wait for the slowest rank included
  bool deterministic = false;     // the same sums in every run with as many ranks
};

// Every rank makes the same calls in the same order with spans of the same size. Spans are of the
// memory of the process's device; a call comes after the device's work before it, and returns when
// its result is there. Every rank gets the same bits. A lost rank fails the call after exchange_ms,
// or at once where the library sees it: UNAVAILABLE (RANK_LOST). After a failed call the object is
// unusable and every later call fails. Threads: one at a time.
class DeviceCommunicator {
 public:
  virtual ~DeviceCommunicator() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t world_size() const = 0;

  // Elementwise sum over all ranks, in place.
  virtual Status AllReduceSum(std::span<float> values) = 0;
  // `all` [world_size, mine.size()]: each rank's `mine`, which may be its place in `all`.
  virtual Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  // The same beside the device's work: begins after what is queued so far, and is done when
  // EndAllGather returns; between the two `all` has no value, and the device may be given other
  // work. One at a time.
  virtual Status BeginAllGather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  virtual Status EndAllGather() = 0;
  // `bytes` of rank `root` on every rank.
  virtual Status Broadcast(std::span<std::byte> bytes, int64_t root) = 0;
};

}  // namespace mft
