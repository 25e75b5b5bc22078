// SPDX-License-Identifier: Apache-2.0
// What every transport owes.
#include "worker/comm/communicator.h"

#include <array>
#include <atomic>
#include <chrono>
#include <ctime>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/worker/comm/comm_testing.h"

namespace mft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::OnRanks;

constexpr std::array kTransports = {RankTransport::kTcp, RankTransport::kSharedMemory};

class Ranks : public ::testing::TestWithParam<std::tuple<RankTransport, int64_t>> {
 protected:
  static RankTransport Transport() { return std::get<0>(GetParam()); }
  static int64_t WorldSize() { return std::get<1>(GetParam()); }
  static void OnAll(const testing::RankWork& work) { OnRanks(Transport(), WorldSize(), work); }
};

INSTANTIATE_TEST_SUITE_P(All,
                         Ranks,
                         ::testing::Combine(::testing::ValuesIn(kTransports),
                                            ::testing::Values(2, 3, 4)),
                         [](const auto& param) {
                           return StrCat(testing::TestNameOf(std::get<0>(param.param)),
                                         std::get<1>(param.param));
                         });

// Values of which no two orders of adding give the same sum.
template <typename T>
std::vector<T> Values(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<T> values(count);
  for (T& value : values) {
    const auto bits = static_cast<int64_t>(random());
    value = static_cast<T>(bits >> 11) * static_cast<T>(1e-9) *
            (bits % 7 == 0 ? static_cast<T>(1e6) : static_cast<T>(1));
  }
  return values;
}

uint64_t Seed(int64_t call, int64_t rank) {
  return static_cast<uint64_t>(call * 100 + rank);
}

template <typename T>
void ExpectSum(Communicator& comm, size_t count, int64_t call) {
  std::vector<T> sum = Values<T>(count, Seed(call, comm.rank()));
  std::vector<T> expected = Values<T>(count, Seed(call, 0));
  for (int64_t rank = 1; rank < comm.world_size(); ++rank) {
    const std::vector<T> terms = Values<T>(count, Seed(call, rank));
    for (size_t i = 0; i < count; ++i) {
      expected[i] += terms[i];
    }
  }
  const Status status = comm.AllReduceSum(std::span(sum));
  ASSERT_TRUE(status.ok()) << status.ToString();
  ASSERT_EQ(sum, expected) << "call " << call << " of " << count;
}

void ExpectGathered(Communicator& comm, size_t bytes, int64_t call) {
  const auto value = [&](size_t i) {
    return static_cast<std::byte>(i * 31 + static_cast<size_t>(call));
  };
  std::vector<std::byte> all(bytes, std::byte{0xA5});
  const Part mine = PartOf(bytes, comm.rank(), comm.world_size());
  for (size_t i = mine.begin; i < mine.begin + mine.size; ++i) {
    all[i] = value(i);
  }
  const Status status = comm.AllGather(all);
  ASSERT_TRUE(status.ok()) << status.ToString();
  for (size_t i = 0; i < bytes; ++i) {
    ASSERT_EQ(all[i], value(i)) << i << " of " << bytes;
  }
}

void ExpectBroadcast(Communicator& comm, size_t bytes, int64_t root) {
  std::vector<std::byte> all(bytes, static_cast<std::byte>(comm.rank() + 1));
  const Status status = comm.Broadcast(all, root);
  ASSERT_TRUE(status.ok()) << status.ToString();
  ASSERT_EQ(all, std::vector<std::byte>(bytes, static_cast<std::byte>(root + 1)));
}

// More than one window of shared memory, and a last one that is odd.
constexpr std::array<size_t, 8> kCounts = {0, 1, 7, 16, 1000, 262'144, 262'145, (1 << 20) + 3};

TEST_P(Ranks, SumInTheOrderOfTheRanks) {
  OnAll([](Communicator& comm) {
    for (const size_t count : kCounts) {
      ExpectSum<float>(comm, count, static_cast<int64_t>(count));
      ExpectSum<double>(comm, count, static_cast<int64_t>(count) + 1);
    }
  });
}

TEST_P(Ranks, GatherWhatEachHasAPartOf) {
  OnAll([](Communicator& comm) {
    for (const size_t count : kCounts) {
      ExpectGathered(comm, count, 3);
    }
    ExpectGathered(comm, (5 << 20) + 13, 4);
  });
}

TEST_P(Ranks, HaveWhatTheRootHas) {
  OnAll([](Communicator& comm) {
    for (int64_t root = 0; root < comm.world_size(); ++root) {
      for (const size_t count : kCounts) {
        ExpectBroadcast(comm, count, root);
      }
    }
    EXPECT_EQ(comm.Broadcast({}, comm.world_size()).code(), Code::kInvalidArgument);
    EXPECT_TRUE(comm.Barrier().ok()) << "a bad argument is no failed call";
  });
}

TEST_P(Ranks, NobodyPassesABarrierBeforeAllHaveCome) {
  std::atomic<int64_t> come = 0;
  OnAll([&](Communicator& comm) {
    for (int64_t round = 1; round <= 50; ++round) {
      ++come;
      ASSERT_TRUE(comm.Barrier().ok());
      EXPECT_GE(come, round * comm.world_size());
    }
  });
}

// The same sequence on every rank, each with pauses of its own.
void MakeRandomCalls(Communicator& comm, int64_t calls, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::mt19937_64 own(seed + static_cast<uint64_t>(comm.rank()) + 1);
  for (int64_t call = 0; call < calls && !::testing::Test::HasFatalFailure(); ++call) {
    const size_t size = random() % (call % 50 == 0 ? 300'000 : 1'000);
    switch (random() % 5) {
      case 0:
        ExpectSum<float>(comm, size, call);
        break;
      case 1:
        ExpectSum<double>(comm, size, call);
        break;
      case 2:
        ExpectGathered(comm, size, call);
        break;
      case 3:
        ExpectBroadcast(comm, size, static_cast<int64_t>(size) % comm.world_size());
        break;
      default:
        ASSERT_TRUE(comm.Barrier().ok());
    }
    if (own() % 50 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(own() % 300));
    }
  }
}

TEST_P(Ranks, MakeAThousandCallsOfAllKinds) {
  OnAll([](Communicator& comm) { MakeRandomCalls(comm, 1000, 7); });
}

TEST_P(Ranks, MakeCallsInTheBackgroundInAnOrderOfTheirOwn) {
  OnAll([](Communicator& comm) {
    std::thread background([&comm] { MakeRandomCalls(comm.background(), 300, 11); });
    MakeRandomCalls(comm, 300, 13);
    background.join();
    EXPECT_EQ(&comm.background().background(), &comm.background());
    EXPECT_EQ(comm.background().rank(), comm.rank());
    EXPECT_TRUE(comm.background().failure().ok());
  });
}

TEST_P(Ranks, SayWhichCallsDifferOnEveryRank) {
  OnAll([](Communicator& comm) {
    ASSERT_TRUE(comm.Barrier().ok());
    const bool odd = comm.rank() == comm.world_size() - 1;
    std::vector<float> values(odd ? 4 : 8);
    const Status status = comm.AllReduceSum(std::span(values));
    EXPECT_EQ(status.code(), Code::kInternal);
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr("rank 0 makes call 2 (sum of floats, 32 bytes)"),
                      HasSubstr(StrCat(
                          "rank ", comm.world_size() - 1, " call 2 (sum of floats, 16 bytes)"))));
    EXPECT_EQ(comm.Barrier().ToString(), status.ToString()) << "unusable from here on";
    EXPECT_EQ(comm.failure().ToString(), status.ToString());
    EXPECT_TRUE(comm.background().Barrier().ok()) << "the other channel is not";
  });
}

TEST_P(Ranks, SayThatKindsOfCallsDiffer) {
  OnAll([](Communicator& comm) {
    std::array<double, 4> values{};
    const Status status = comm.rank() == 0
                              ? comm.Broadcast(std::as_writable_bytes(std::span(values)), 1)
                              : comm.AllReduceSum(std::span(values));
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr("broadcast from rank 1"), HasSubstr("sum of doubles")));
  });
}

TEST_P(Ranks, DoNotMissOneThatHasSaidGoodBye) {
  OnAll([](Communicator& comm) {
    comm.SetPlace(17, "ending");
    ASSERT_TRUE(comm.Barrier().ok());
    if (comm.rank() == 1) {
      return;
    }
    // Longer than a silent one may be.
    std::this_thread::sleep_for(std::chrono::milliseconds(2'200));
    // Nobody is lost; but somebody is not there either.
    const Status status = comm.Barrier();
    EXPECT_EQ(status.reason(), kReasonRankLost);
    EXPECT_EQ(status.message(), "rank 1 has ended; it was at step 17, ending");
  });
}

TEST(PartOf, CoversEveryByteOnceInPartsOfTheSameSize) {
  for (const size_t size : {0, 1, 63, 64, 65, 1000, 1 << 20, (1 << 20) + 3}) {
    for (const int64_t world_size : {1, 2, 3, 7}) {
      size_t end = 0;
      for (int64_t rank = 0; rank < world_size; ++rank) {
        const Part part = PartOf(size, rank, world_size);
        EXPECT_EQ(part.begin, end);
        EXPECT_TRUE(part.begin % 64 == 0 || part.size == 0);
        EXPECT_LE(part.size, size / static_cast<size_t>(world_size) + 64);
        end += part.size;
      }
      EXPECT_EQ(end, size);
    }
  }
}

// Signs of life that answer each other at once take a core from the work.
TEST(SignsOfLife, CostNextToNothing) {
  OnRanks(RankTransport::kAuto, 4, [](Communicator& comm) {
    ASSERT_TRUE(comm.Barrier().ok());
    const std::clock_t begin = std::clock();  // of all ranks: they are threads of this process
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    const double used = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    EXPECT_LT(used, 0.1);
    ASSERT_TRUE(comm.Barrier().ok());
  });
}

}  // namespace
}  // namespace mft
