// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/comm/comm_testing.h"

#include <sys/wait.h>
#include <unistd.h>

#include <ostream>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace mft {

void PrintTo(RankTransport transport, std::ostream* out) {
  *out << RankTransportName(transport);
}

}  // namespace mft

namespace mft::testing {

std::string TestNameOf(RankTransport transport) {
  return transport == RankTransport::kTcp ? "Tcp" : "SharedMemory";
}

RankOptions Meeting::Options(int64_t rank, int64_t world_size, RankTransport transport) const {
  return {.rank = rank,
          .world_size = world_size,
          .rendezvous_file = dir_.File("rendezvous.json"),
          .token = "a job",
          .transport = transport,
          .meet_ms = 20'000,
          .silence_ms = 2'000,
          .beat_ms = 50,
          .leave_ms = 0};
}

void OnRanks(RankTransport transport, int64_t world_size, const RankWork& work) {
  const Meeting meeting;
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      const auto comm = MakeCommunicator(meeting.Options(rank, world_size, transport));
      ASSERT_TRUE(comm.ok()) << comm.status().ToString();
      work(**comm);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

namespace {
int RunRank(const RankOptions& options, const std::function<int(Communicator&)>& work) {
  const auto comm = MakeCommunicator(options);
  return comm.ok() ? work(**comm) : kDidNotMeet;
}
}  // namespace

pid_t StartRankProcess(const RankOptions& options, const std::function<int(Communicator&)>& work) {
  const pid_t pid = fork();
  if (pid == 0) {
    _exit(RunRank(options, work));
  }
  return pid;
}

int ExitCodeOf(pid_t pid) {
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

}  // namespace mft::testing
