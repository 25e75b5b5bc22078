// SPDX-License-Identifier: Apache-2.0
// Two buffers for blocks: one is worked with while a thread fills the other with the next.
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <thread>

#include "common/base/status.h"
#include "worker/model/aligned_floats.h"
#include "worker/model/block_image.h"
#include "worker/model/weight_source.h"

namespace mft {

// Which blocks are filled, and in which order, follows from the calls of Get alone, not from how
// long anything takes: ranks that make the same calls fill the same blocks.
// Threads: Get by one at a time.
class BlockBuffers {
 public:
  // Writes all of a block's image. On the thread, one at a time.
  using Fill = std::function<Status(int64_t block, std::span<std::byte> image)>;

  // `images` must outlive the object, and so must what `fill` uses.
  BlockBuffers(const BlockImages& images, Fill fill);
  ~BlockBuffers();  // what was asked for is filled to its end
  BlockBuffers(const BlockBuffers&) = delete;
  BlockBuffers& operator=(const BlockBuffers&) = delete;

  // Valid until the next call. An error of `fill` is that of every Get of its block.
  Result<const BlockWeights*> Get(int64_t block, Phase phase);

  int64_t bytes() const { return static_cast<int64_t>(slots_.size()) * images_.largest_bytes(); }

 private:
  struct Slot {
    int64_t block = -1;
    bool ready = true;  // not being filled
    Status status;      // of the filling
    AlignedFloats memory;
    BlockWeights weights;
  };
  // The next three with mutex_ held.
  Slot* Find(int64_t block);
  void Want(Slot& slot, int64_t block);
  Slot* Wanted();
  void Run();

  const BlockImages& images_;
  const Fill fill_;
  std::array<Slot, 2> slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace mft
