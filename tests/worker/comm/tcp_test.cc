// SPDX-License-Identifier: Apache-2.0
// Ranks as threads of this process, and as processes where one of them has to die.
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "worker/comm/communicator.h"
#include "worker/comm/tcp_socket.h"

namespace mft {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

int FreePort() {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  return ntohs(address.sin_port);
}

TcpOptions Options(int64_t rank, int64_t world_size, int port) {
  return {.rank = rank,
          .world_size = world_size,
          .address = "127.0.0.1",
          .port = port,
          .token = "a job",
          .meet_ms = 20'000,
          .silence_ms = 2'000,
          .beat_ms = 50,
          .leave_ms = 0};
}

using Work = std::function<void(Communicator&)>;

// `work` on every rank, each a thread.
void OnRanks(int64_t world_size, const Work& work) {
  const int port = FreePort();
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([=] {
      const auto comm = MakeTcpCommunicator(Options(rank, world_size, port));
      ASSERT_TRUE(comm.ok()) << comm.status().ToString();
      work(**comm);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

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

TEST(TcpRanks, ARankThatDoesNotComeIsNamed) {
  TcpOptions options = Options(0, 4, FreePort());
  options.meet_ms = 300;
  std::thread second([port = options.port] {
    TcpOptions mine = Options(2, 4, port);
    mine.meet_ms = 300;
    const auto comm = MakeTcpCommunicator(mine);
    // It has met rank 0, which then gives up on the others.
    if (comm.ok()) {
      EXPECT_EQ((*comm)->Barrier().reason(), kReasonRankLost);
    }
  });
  const Status status = MakeTcpCommunicator(options).status();
  second.join();
  EXPECT_EQ(status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(status.reason(), "RANKS_DID_NOT_MEET");
  EXPECT_THAT(status.message(), AllOf(HasSubstr("rank 1, 3 of 4"), HasSubstr("127.0.0.1")));
  TcpOptions alone = Options(1, 2, options.port);
  alone.meet_ms = 200;
  const Status nobody = MakeTcpCommunicator(alone).status();
  EXPECT_EQ(nobody.reason(), "RANKS_DID_NOT_MEET");
  EXPECT_THAT(nobody.message(), HasSubstr("rank 1 did not meet rank 0"));
}

TEST(TcpRanks, WaitingEndsWhenItIsAskedTo) {
  for (const int64_t rank : {0, 1}) {
    TcpOptions options = Options(rank, 2, FreePort());
    options.stop = [] { return true; };
    EXPECT_EQ(MakeTcpCommunicator(options).status().code(), Code::kCancelled);
  }
}

TEST(TcpRanks, StrangersAreSentAwayAndTheRanksMeet) {
  const int port = FreePort();
  std::thread strangers([port] {
    TcpOptions other_job = Options(1, 2, port);
    other_job.token = "another job";
    EXPECT_THAT(MakeTcpCommunicator(other_job).status().message(), HasSubstr("another job"));
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    const UniqueFd rude = ConnectToRank("127.0.0.1", port, deadline, {}).value();
    std::array<std::byte, 1000> noise{};
    EXPECT_TRUE(SendAll(rude.get(), noise).ok());
    const auto comm = MakeTcpCommunicator(Options(1, 2, port));
    ASSERT_TRUE(comm.ok()) << comm.status().ToString();
    EXPECT_TRUE((*comm)->Barrier().ok());
  });
  const auto comm = MakeTcpCommunicator(Options(0, 2, port));
  ASSERT_TRUE(comm.ok()) << comm.status().ToString();
  EXPECT_TRUE((*comm)->Barrier().ok());
  strangers.join();
}

TEST(TcpRanks, AnotherNumberOfRanksIsAnErrorOnBothSides) {
  const int port = FreePort();
  std::thread other([port] {
    EXPECT_THAT(MakeTcpCommunicator(Options(1, 3, port)).status().message(),
                HasSubstr("one of 3 ranks, rank 0 as one of 2"));
  });
  const Status status = MakeTcpCommunicator(Options(0, 2, port)).status();
  other.join();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 was started as one of 3 ranks"));
  EXPECT_EQ(MakeTcpCommunicator(Options(0, 2, 0)).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(MakeTcpCommunicator(Options(2, 2, 1)).status().code(), Code::kInvalidArgument);
}

// A rank as a process of its own: it meets the others, then does `work`.
pid_t StartRankProcess(const TcpOptions& options, const Work& work) {
  const pid_t pid = fork();
  if (pid == 0) {
    const auto comm = MakeTcpCommunicator(options);
    if (!comm.ok()) {
      _exit(99);
    }
    work(**comm);
    _exit(0);
  }
  return pid;
}

int ExitCodeOf(pid_t pid) {
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

struct LossCase {
  const char* name;
  int64_t lost;  // of three ranks
  int signal;
};

class LostRank : public ::testing::TestWithParam<LossCase> {};

// All others are processes too; each must find out whose end it was.
TEST_P(LostRank, IsNamedByEveryOtherRankWithItsPlace) {
  const auto [name, lost, signal] = GetParam();
  const int port = FreePort();
  std::vector<pid_t> pids;
  for (int64_t rank = 0; rank < 3; ++rank) {
    pids.push_back(StartRankProcess(Options(rank, 3, port), [rank, lost](Communicator& comm) {
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
                         LostRank,
                         ::testing::Values(LossCase{"HubKilled", 0, SIGKILL},
                                           LossCase{"HubStopped", 0, SIGSTOP},
                                           LossCase{"OtherKilled", 1, SIGKILL},
                                           LossCase{"OtherStopped", 2, SIGSTOP}),
                         [](const auto& param) { return param.param.name; });

TEST(TcpRanks, ARankThatIsComputingEndsWhenAnotherIsLost) {
  const int port = FreePort();
  TcpOptions options = Options(0, 2, port);
  options.leave_ms = 100;
  const pid_t computing = StartRankProcess(options, [](Communicator&) {
    while (true) {
      pause();
    }
  });
  const pid_t lost = StartRankProcess(Options(1, 2, port), [](Communicator&) { _exit(1); });
  EXPECT_EQ(ExitCodeOf(lost), 1);
  EXPECT_EQ(ExitCodeOf(computing), ExitCodeFor(Code::kUnavailable));
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
