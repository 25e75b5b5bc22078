// SPDX-License-Identifier: Apache-2.0
// Memory that the ranks of one host share. It has no name in any file system: whatever is killed,
// nothing is left behind.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "worker/comm/tcp_meeting.h"

namespace mft {

class SharedSegment {
 public:
  // `bytes` must be what mmap gave; they are unmapped with the object.
  explicit SharedSegment(std::span<std::byte> bytes) : bytes_(bytes) {}
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  const std::span<std::byte> bytes_;
};

// Called by every rank when all have met. Zeroed memory of rank 0's that every rank has mapped, or
// nullptr on every rank where one cannot: it is on another host, or in a container of its own.
// FAILED_PRECONDITION says which and why where options.transport is kSharedMemory. UNAVAILABLE: a
// rank is gone; CANCELLED where options.stop ended it.
Result<std::unique_ptr<SharedSegment>> ShareMemory(const RankOptions& options,
                                                   const std::vector<RankLink>& links,
                                                   size_t bytes);

}  // namespace mft
