// SPDX-License-Identifier: Apache-2.0
// What ranks say to each other. One file for each means of transport.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "common/base/status.h"

namespace mft {

// Every rank makes the same calls in the same order with spans of the same size; a call returns
// when this rank's result is in its memory. After a failed call the communicator is unusable and
// every later call fails. A sum has the same bits on every rank.
// Threads: one at a time.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int64_t rank() const = 0;        // from 0
  virtual int64_t world_size() const = 0;  // at least 1

  // Elementwise sum over all ranks, in place.
  virtual Status AllReduceSum(std::span<float> values) = 0;
  virtual Status AllReduceSum(std::span<double> values) = 0;
  // `bytes` of rank `root` on every rank.
  virtual Status Broadcast(std::span<std::byte> bytes, int64_t root) = 0;
  virtual Status Barrier() = 0;
};

// One rank alone: nothing to exchange. UNIMPLEMENTED for more ranks than one.
Result<std::unique_ptr<Communicator>> MakeLocalCommunicator(int64_t rank, int64_t world_size);

}  // namespace mft
