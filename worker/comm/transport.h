// SPDX-License-Identifier: Apache-2.0
// How bytes move between the ranks on one channel. Which calls there are, and what a failed one
// means, is ranks.cc's; a transport is a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "worker/comm/shared_segment.h"
#include "worker/comm/tcp_meeting.h"

namespace mft {

enum class Call : uint32_t { kSumFloat, kSumDouble, kGather, kBroadcast, kBarrier };

// Compared before every exchange: ranks that do not make the same calls are found out, not summed
// up.
struct CallHeader {
  Call call = Call::kBarrier;
  uint32_t root = 0;
  uint64_t number = 0;  // of the call on its channel, from 1
  uint64_t bytes = 0;
  bool operator==(const CallHeader&) const = default;
};

// What every rank says when rank `rank` makes another call than rank 0.
Status CallsDiffer(const CallHeader& first, int64_t rank, const CallHeader& other);

// Every rank makes the same calls in the same order. UNAVAILABLE: another rank is gone, or the
// transport was broken. Threads: one at a time; Break from any.
class Transport {
 public:
  virtual ~Transport() = default;
  // Returns when all ranks have come with the same call; CallsDiffer on every rank where they have
  // not.
  virtual Status Agree(const CallHeader& mine) = 0;
  // In place; the terms are added in the order of the ranks.
  virtual Status Sum(std::span<float> values) = 0;
  virtual Status Sum(std::span<double> values) = 0;
  // Rank r has parts[r]; afterwards every rank has all of them.
  virtual Status Spread(std::span<const std::span<std::byte>> parts) = 0;
  // Whoever waits in a call fails, and every later call does.
  virtual void Break() = 0;
};

// sum[i] += terms[i]
template <typename T>
void AddTerms(T* sum, const T* terms, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    sum[i] += terms[i];
  }
}

// Rank 0 is the hub of every exchange. `channel` says which connection of each link; `links` must
// outlive the object.
std::unique_ptr<Transport> MakeTcpTransport(int64_t rank,
                                            const std::vector<RankLink>& links,
                                            Channel channel);

// Memory that one channel of a transport takes.
size_t SharedChannelBytes(int64_t world_size);
// `memory`: as many zeroed bytes of a segment that every rank sees, the same ones on every rank.
// Must outlive the object.
std::unique_ptr<Transport> MakeSharedMemoryTransport(int64_t rank,
                                                     int64_t world_size,
                                                     std::span<std::byte> memory);

}  // namespace mft
