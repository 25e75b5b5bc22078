// SPDX-License-Identifier: Apache-2.0
// What ranks say to each other. One file for each means of transport.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/journal/record.h"

namespace mft {

// A piece of something that is cut up among the ranks.
struct Part {
  size_t begin = 0;  // at a cache line
  size_t size = 0;
};
// Rank `rank`'s of `size` bytes: all are of the same size, up to a cache line.
Part PartOf(size_t size, int64_t rank, int64_t world_size);

// Every rank makes the same calls in the same order with spans of the same size; a call returns
// when this rank's result is in its memory. Ranks that make different calls are an error
// (INTERNAL) on every rank that names both calls. After a failed call the communicator is unusable
// and every later call fails. A sum has the same bits on every rank and by every transport:
// ((rank 0 + rank 1) + rank 2) ...
// Threads: one at a time. background() is for another one.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int64_t rank() const = 0;        // from 0
  virtual int64_t world_size() const = 0;  // at least 1

  // Elementwise sum over all ranks, in place.
  virtual Status AllReduceSum(std::span<float> values) = 0;
  virtual Status AllReduceSum(std::span<double> values) = 0;
  // Each rank brings its part of `bytes` (PartOf), in its place; afterwards every rank has all.
  virtual Status AllGather(std::span<std::byte> bytes) = 0;
  // `bytes` of rank `root` on every rank.
  virtual Status Broadcast(std::span<std::byte> bytes, int64_t root) = 0;
  virtual Status Barrier() = 0;

  // Where this rank is: what the others say of it, should it be lost.
  virtual void SetPlace(int64_t step, std::string_view phase) = 0;

  // The same ranks on a channel of its own: its calls are in an order of their own, beside this
  // one's, made by another thread. Lives as long as this object; its own background() is itself. A
  // lost rank fails the calls on both, but only who calls here, or asks for failure(), is known to
  // end by himself (RankOptions::leave_ms): a thread in the background must tell.
  virtual Communicator& background() = 0;
  // Of the call that failed, or OK: for who hears that another thread's did.
  virtual Status failure() = 0;
};

// One rank alone: nothing to exchange. INVALID_ARGUMENT for more ranks than one.
Result<std::unique_ptr<Communicator>> MakeLocalCommunicator(int64_t rank, int64_t world_size);

// How the ranks' data travels; they always meet by TCP.
enum class RankTransport : uint32_t {
  kAuto,          // shared memory where all ranks can, else TCP
  kTcp,           // ranks on any hosts; rank 0 is the hub of every exchange
  kSharedMemory,  // ranks of one host (and one pid namespace)
};
std::string_view RankTransportName(RankTransport transport);

struct RankOptions {
  int64_t rank = 0;
  int64_t world_size = 1;
  // Where the ranks meet. A file that all of them can read: rank 0 publishes there where it
  // listens, whatever port is free. Empty: `address`:`port`.
  std::string rendezvous_file;
  std::string address;  // of rank 0's host; with a file empty: the ranks' own host
  int port = 0;         // rank 0 listens there while the ranks meet
  std::string token;    // the same on every rank of a job's attempt, and of no other
  RankTransport transport = RankTransport::kAuto;  // the same on every rank
  int64_t meet_ms = 300'000;                       // until all have met
  // A rank that shows no sign of life for so long is lost. Signs come from a thread of their own,
  // every `beat_ms`: a long step is no silence.
  int64_t silence_ms = 7'000;
  int64_t beat_ms = 500;
  // A rank that is computing when another one is lost ends by itself after so long
  // (exit code of UNAVAILABLE), if its next call does not come before.
  int64_t leave_ms = 1'500;
  std::function<bool()> stop;  // while meeting: true ends it (CANCELLED); may be empty
};

// One rank: the above. More: waits until all have met: DEADLINE_EXCEEDED (RANKS_DID_NOT_MEET) names
// who is missing, FAILED_PRECONDITION a rank of another build or job, or one that cannot share
// memory where that is asked for. A lost rank ends the meeting that it has come to, and fails
// the calls of all others, at once if its process is gone, else after silence_ms: UNAVAILABLE
// (RANK_LOST) names it and where it was. The destructor says good-bye: the others may go on without
// calls.
Result<std::unique_ptr<Communicator>> MakeCommunicator(const RankOptions& options);

}  // namespace mft
