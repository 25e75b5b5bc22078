// SPDX-License-Identifier: Apache-2.0
// Ranks as threads of this process, and as processes where one of them has to die.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>

#include "tests/support/temp_dir.h"
#include "worker/comm/communicator.h"

namespace mft {

void PrintTo(RankTransport transport, std::ostream* out);

}  // namespace mft

namespace mft::testing {

// Where the ranks of one test meet: a file in a folder of its own.
class Meeting {
 public:
  RankOptions Options(int64_t rank,
                      int64_t world_size,
                      RankTransport transport = RankTransport::kAuto) const;

 private:
  TempDir dir_;
};

// "Tcp", "SharedMemory": of a test's name.
std::string TestNameOf(RankTransport transport);

using RankWork = std::function<void(Communicator&)>;

// `work` on every rank, each a thread.
void OnRanks(RankTransport transport, int64_t world_size, const RankWork& work);

// A rank as a process of its own: it meets the others, does `work` and ends with what that returns;
// with kDidNotMeet if it cannot meet them. Called before this process has other threads.
inline constexpr int kDidNotMeet = 99;
pid_t StartRankProcess(const RankOptions& options, const std::function<int(Communicator&)>& work);

// Of a process that has ended; 1000 and the signal that ended it.
int ExitCodeOf(pid_t pid);

}  // namespace mft::testing
