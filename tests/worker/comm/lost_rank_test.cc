// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/worker/comm/comm_testing.h"
#include "worker/comm/communicator.h"

namespace mft {
namespace {

using testing::ExitCodeOf;
using testing::Meeting;
using testing::StartRankProcess;

struct LossCase {
  const char* name;
  int64_t lost;  // of three ranks
  int signal;
};

class LostRanks : public ::testing::TestWithParam<LossCase> {};

// All others are processes too; each must find out whose end it was.
TEST_P(LostRanks, IsNamedByEveryOtherRankWithItsPlace) {
  const auto [name, lost, signal] = GetParam();
  const Meeting meeting;
  std::vector<pid_t> pids;
  for (int64_t rank = 0; rank < 3; ++rank) {
    pids.push_back(StartRankProcess(meeting.Options(rank, 3), [rank, lost](Communicator& comm) {
      comm.SetPlace(41 + rank, "training");
      if (!comm.Barrier().ok()) {
        _exit(98);
      }
      if (rank == lost) {
        while (true) {
          pause();
        }
      }
      std::vector<float> values(1 << 20);
      const Status status = comm.AllReduceSum(values);
      const bool named =
          status.reason() == kReasonRankLost &&
          status.message().starts_with(StrCat("rank ", lost, " ")) &&
          status.message().find(StrCat("at step ", 41 + lost, ", training")) != std::string::npos;
      std::fprintf(stderr, "rank %d: %s\n", static_cast<int>(rank), status.message().c_str());
      _exit(named ? 0 : 97);
    }));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  kill(pids[static_cast<size_t>(lost)], signal);
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t rank = 0; rank < 3; ++rank) {
    if (rank != lost) {
      EXPECT_EQ(ExitCodeOf(pids[static_cast<size_t>(rank)]), 0) << "rank " << rank;
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  kill(pids[static_cast<size_t>(lost)], SIGKILL);
  EXPECT_EQ(ExitCodeOf(pids[static_cast<size_t>(lost)]), 1000 + SIGKILL);
}

INSTANTIATE_TEST_SUITE_P(Ranks,
                         LostRanks,
                         ::testing::Values(LossCase{"HubKilled", 0, SIGKILL},
                                           LossCase{"HubStopped", 0, SIGSTOP},
                                           LossCase{"OtherKilled", 1, SIGKILL},
                                           LossCase{"OtherStopped", 2, SIGSTOP}),
                         [](const auto& param) { return param.param.name; });

TEST(LostRank, ARankThatIsComputingEndsWhenAnotherIsLost) {
  const Meeting meeting;
  RankOptions options = meeting.Options(0, 2);
  options.leave_ms = 100;
  const pid_t computing = StartRankProcess(options, [](Communicator&) {
    while (true) {
      pause();
    }
  });
  const pid_t lost = StartRankProcess(meeting.Options(1, 2), [](Communicator&) { _exit(1); });
  EXPECT_EQ(ExitCodeOf(lost), 1);
  EXPECT_EQ(ExitCodeOf(computing), ExitCodeFor(Code::kUnavailable));
}

}  // namespace
}  // namespace mft
