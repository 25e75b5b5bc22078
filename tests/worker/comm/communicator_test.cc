// SPDX-License-Identifier: Apache-2.0
// What every transport owes.
#include "worker/comm/communicator.h"

#include <array>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/comm/comm_testing.h"

namespace mft {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::OnRanks;

class TcpCommunicator : public ::testing::TestWithParam<int64_t> {};

TEST_P(TcpCommunicator, SumsInTheOrderOfTheRanks) {
  constexpr size_t kCount = 700'001;  // more than is summed at a time
  const auto value = [](int64_t rank, size_t i) {
    return static_cast<float>(i % 1000) * 1e-3F + static_cast<float>(rank) * 1e5F + 0.1F;
  };
  OnRanks(GetParam(), [&](Communicator& comm) {
    std::vector<float> values(kCount);
    for (size_t i = 0; i < kCount; ++i) {
      values[i] = value(comm.rank(), i);
    }
    std::array<double, 2> sums = {static_cast<double>(comm.rank()), 1};
    ASSERT_TRUE(comm.AllReduceSum(values).ok());
    ASSERT_TRUE(comm.AllReduceSum(sums).ok());
    for (size_t i = 0; i < kCount; ++i) {
      float expected = value(0, i);
      for (int64_t rank = 1; rank < comm.world_size(); ++rank) {
        expected += value(rank, i);
      }
      ASSERT_EQ(values[i], expected) << i;
    }
    const auto n = static_cast<double>(comm.world_size());
    EXPECT_EQ(sums, (std::array<double, 2>{n * (n - 1) / 2, n}));
    ASSERT_TRUE(comm.AllReduceSum(std::span<float>()).ok());
  });
}

TEST_P(TcpCommunicator, GivesEveryRankWhatTheRootHas) {
  OnRanks(GetParam(), [](Communicator& comm) {
    for (int64_t root = 0; root < comm.world_size(); ++root) {
      std::vector<int64_t> values(100, comm.rank());
      ASSERT_TRUE(comm.Broadcast(std::as_writable_bytes(std::span(values)), root).ok());
      EXPECT_EQ(values, std::vector<int64_t>(100, root));
    }
    EXPECT_EQ(comm.Broadcast({}, comm.world_size()).code(), Code::kInvalidArgument);
  });
}

TEST_P(TcpCommunicator, NobodyPassesABarrierBeforeAllHaveCome) {
  std::atomic<int64_t> come = 0;
  OnRanks(GetParam(), [&](Communicator& comm) {
    for (int64_t round = 1; round <= 50; ++round) {
      ++come;
      ASSERT_TRUE(comm.Barrier().ok());
      EXPECT_GE(come, round * comm.world_size());
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, TcpCommunicator, ::testing::Values(2, 4));

TEST(TcpRanks, DifferentCallsAreAnErrorOnEveryRank) {
  OnRanks(2, [](Communicator& comm) {
    std::vector<float> values(comm.rank() == 0 ? 8 : 4);
    const Status status = comm.AllReduceSum(values);
    EXPECT_FALSE(status.ok());
    if (comm.rank() == 0) {
      EXPECT_THAT(status.message(), AllOf(HasSubstr("32 bytes"), HasSubstr("16 bytes")));
    }
    EXPECT_EQ(comm.Barrier().ToString(), status.ToString()) << "unusable from here on";
  });
}

TEST(TcpRanks, OneThatHasSaidGoodByeIsNotMissed) {
  OnRanks(3, [](Communicator& comm) {
    ASSERT_TRUE(comm.Barrier().ok());
    if (comm.rank() == 0) {  // the others are gone meanwhile, longer than a silent one may be
      std::this_thread::sleep_for(std::chrono::milliseconds(2'500));
      // Nobody is lost; but nobody is there either.
      const Status status = comm.Barrier();
      EXPECT_EQ(status.reason(), kReasonRankLost);
      EXPECT_THAT(status.message(), AnyOf(HasSubstr("closed the connection"), HasSubstr("reset")));
    }
  });
}

}  // namespace
}  // namespace mft
