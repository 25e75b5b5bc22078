// SPDX-License-Identifier: Apache-2.0
// Shared memory as threads of one process see it: at one address, so that a thread sanitizer sees
// who waits for whom.
#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/comm/comm_testing.h"
#include "worker/comm/shared_segment.h"
#include "worker/comm/tcp_socket.h"
#include "worker/comm/transport.h"

namespace mft {
namespace {

using ::testing::HasSubstr;

struct alignas(64) Line {
  std::array<std::byte, 64> bytes{};
};

class SharedMemory : public ::testing::TestWithParam<int64_t> {
 protected:
  SharedMemory() : memory_((SharedChannelBytes(GetParam()) + 63) / 64) {}
  std::unique_ptr<Transport> Make(int64_t rank) {
    return MakeSharedMemoryTransport(rank, GetParam(), std::as_writable_bytes(std::span(memory_)));
  }
  void OnRanks(const std::function<void(Transport&, int64_t rank)>& work) {
    std::vector<std::thread> threads;
    for (int64_t rank = 0; rank < GetParam(); ++rank) {
      threads.emplace_back([&, rank] { work(*Make(rank), rank); });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
  }

 private:
  std::vector<Line> memory_;
};

INSTANTIATE_TEST_SUITE_P(Ranks, SharedMemory, ::testing::Values(2, 3, 5));

TEST_P(SharedMemory, ExchangesFollowEachOtherWithoutAPause) {
  OnRanks([](Transport& transport, int64_t rank) {
    const auto world_size = static_cast<size_t>(GetParam());
    std::mt19937_64 random(5);
    for (uint64_t number = 1; number <= 200; ++number) {
      const size_t size = random() % (number % 40 == 0 ? 400'000 : 500);
      std::vector<float> values(size, static_cast<float>(rank + 1));
      ASSERT_TRUE(transport.Agree({.number = number, .bytes = size}).ok());
      if (random() % 2 == 0) {
        ASSERT_TRUE(transport.Sum(std::span(values)).ok());
        ASSERT_EQ(values,
                  std::vector<float>(size, static_cast<float>(world_size * (world_size + 1) / 2)));
        continue;
      }
      std::vector<std::span<std::byte>> parts;
      for (size_t of = 0; of < world_size; ++of) {
        parts.push_back(std::as_writable_bytes(std::span(values).subspan(
            size * of / world_size, size * (of + 1) / world_size - size * of / world_size)));
      }
      ASSERT_TRUE(transport.Spread(parts).ok());
      for (size_t of = 0; of < world_size; ++of) {
        for (size_t i = size * of / world_size; i < size * (of + 1) / world_size; ++i) {
          ASSERT_EQ(values[i], static_cast<float>(of + 1)) << i;
        }
      }
    }
  });
}

TEST_P(SharedMemory, WhoWaitsIsWokenWhenItIsBroken) {
  std::thread breaker([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    Make(0)->Break();
  });
  OnRanks([](Transport& transport, int64_t rank) {
    if (rank != 0) {  // who never comes
      EXPECT_EQ(transport.Agree({.number = 1}).code(), Code::kUnavailable);
      EXPECT_EQ(transport.Agree({.number = 2}).code(), Code::kUnavailable);
    }
  });
  breaker.join();
}

// Two ends of a connection, as the meeting makes them.
std::pair<RankLink, RankLink> Connected() {
  const UniqueFd listener = ListenForRanks("127.0.0.1", 0).value();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  std::pair<RankLink, RankLink> ends;
  ends.first.rank = 1;
  ends.second[Channel::kMain] =
      ConnectToRank("127.0.0.1", PortOf(listener.get()).value(), deadline, {}).value();
  ends.first[Channel::kMain] = AcceptRank(listener.get(), deadline, {}).value();
  return ends;
}

// A second rank that expects other memory than rank 0 has.
Status ShareUnequally(RankTransport transport, bool& shared) {
  auto ends = Connected();
  const testing::Meeting meeting;
  std::vector<RankLink> of_first;
  of_first.push_back(std::move(ends.first));
  std::vector<RankLink> of_second;
  of_second.push_back(std::move(ends.second));
  std::thread second([&] {
    const auto segment = ShareMemory(meeting.Options(1, 2, transport), of_second, 8192);
    EXPECT_EQ(segment.ok(), transport == RankTransport::kAuto);
    EXPECT_TRUE(!segment.ok() || *segment == nullptr);
  });
  const auto segment = ShareMemory(meeting.Options(0, 2, transport), of_first, 4096);
  second.join();
  shared = segment.ok() && *segment != nullptr;
  return segment.status();
}

TEST(SharedSegment, IsNobodysWhereOneRankCannotShareIt) {
  bool shared = true;
  EXPECT_TRUE(ShareUnequally(RankTransport::kAuto, shared).ok());
  EXPECT_FALSE(shared);
  const Status status = ShareUnequally(RankTransport::kSharedMemory, shared);
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("cannot share memory: rank 1: the memory that it found"));
}

}  // namespace
}  // namespace mft
