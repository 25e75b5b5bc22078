// SPDX-License-Identifier: Apache-2.0
// What ranks do together where one of them fails: threads of this process.
#include <cstdint>
#include <functional>
#include <new>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/worker/comm/comm_testing.h"
#include "worker/model/status_error.h"
#include "worker/train/ranks.h"

namespace mft {
namespace {

// Of each of three ranks: what OnFirst ends with where rank 0's work ends so.
void ExpectOnAll(const std::function<Status()>& work, const Status& expected) {
  const testing::Meeting meeting;
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      Ranks ranks(ValueOrThrow(MakeCommunicator(meeting.Options(rank, 3))));
      try {
        ranks.OnFirst(work);
        ADD_FAILURE() << "rank " << rank << ": no error";
      } catch (const StatusError& error) {
        EXPECT_EQ(error.status().ToString(), expected.ToString()) << "rank " << rank;
      }
      bool answer = rank == 1;
      ranks.Any(std::span(&answer, 1));  // they are still in step
      EXPECT_TRUE(answer);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(RanksTogether, FailAlikeWhateverTheFirstOneThrows) {
  const Status not_found = NotFound("no such file");
  ExpectOnAll([&] { return not_found; }, not_found);
  ExpectOnAll([&]() -> Status { throw StatusError(not_found); }, not_found);
  ExpectOnAll([]() -> Status { throw std::runtime_error("CUDA: no device"); },
              Internal("CUDA: no device"));
  ExpectOnAll([]() -> Status { throw std::bad_alloc(); },
              Status(Code::kResourceExhausted, "OUT_OF_MEMORY", "no memory left"));
}

}  // namespace
}  // namespace mft
