// SPDX-License-Identifier: Apache-2.0
// Ranks that die or stand still while the others meet, sum, gather or compute.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ostream>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "tests/worker/comm/comm_testing.h"
#include "worker/comm/communicator.h"
#include "worker/comm/rank_watch.h"
#include "worker/comm/tcp_meeting.h"
#include "worker/comm/tcp_socket.h"

namespace mft {
namespace {

using testing::ExitCodeOf;
using testing::Meeting;
using testing::StartRankProcess;

constexpr int64_t kRanks = 3;

struct LossCase {
  const char* name;
  int64_t lost;
  int signal;
};
void PrintTo(const LossCase& loss, std::ostream* out) {
  *out << loss.name;
}

// What every rank does, over and over, when one is lost.
enum class Doing { kSumming, kGathering, kWaiting };

std::string NameOf(Doing doing) {
  switch (doing) {
    case Doing::kSumming:
      return "Summing";
    case Doing::kGathering:
      return "Gathering";
    case Doing::kWaiting:
      return "Waiting";
  }
  return "";
}
void PrintTo(Doing doing, std::ostream* out) {
  *out << NameOf(doing);
}

class LostRanks : public ::testing::TestWithParam<std::tuple<RankTransport, LossCase, Doing>> {};

Status Do(Communicator& comm, Doing doing, int64_t lost) {
  std::vector<float> values(1 << 20);
  for (;;) {
    Status status;
    if (doing == Doing::kSumming) {
      status = comm.AllReduceSum(std::span(values));
    } else if (doing == Doing::kGathering) {
      status = comm.background().AllGather(std::as_writable_bytes(std::span(values)));
    } else if (comm.rank() == lost) {
      pause();
    } else {
      status = comm.Barrier();
    }
    if (!status.ok()) {
      return comm.failure().ok() ? comm.background().failure() : comm.failure();
    }
  }
}

bool Names(const Status& status, int64_t lost) {
  return status.reason() == kReasonRankLost &&
         status.message().starts_with(StrCat("rank ", lost, " ")) &&
         status.message().ends_with(StrCat("it was at step ", 41 + lost, ", training"));
}

std::ptrdiff_t NamesInSharedMemory() {
  const auto names = ListDir("/dev/shm").value();
  return std::ranges::count_if(
      names, [](const std::string& name) { return name.find("mft") != std::string::npos; });
}

// All are processes; each that is left must find out whose end it was.
TEST_P(LostRanks, AreNamedByEveryOtherRankWithTheirPlace) {
  const auto [transport, loss, doing] = GetParam();
  const int64_t lost = loss.lost;
  const Meeting meeting;
  std::vector<pid_t> pids;
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    pids.push_back(StartRankProcess(
        meeting.Options(rank, kRanks, transport), [=, doing = doing](Communicator& comm) {
          comm.SetPlace(41 + rank, "training");
          if (!comm.Barrier().ok()) {
            return 98;
          }
          const Status status = Do(comm, doing, lost);
          std::fprintf(stderr, "rank %d: %s\n", static_cast<int>(rank), status.message().c_str());
          return Names(status, lost) ? 0 : 97;
        }));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  kill(pids[static_cast<size_t>(lost)], loss.signal);
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    if (rank != lost) {
      EXPECT_EQ(ExitCodeOf(pids[static_cast<size_t>(rank)]), 0) << "rank " << rank;
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  kill(pids[static_cast<size_t>(lost)], SIGKILL);
  EXPECT_EQ(ExitCodeOf(pids[static_cast<size_t>(lost)]), 1000 + SIGKILL);
  EXPECT_EQ(NamesInSharedMemory(), 0);
}

INSTANTIATE_TEST_SUITE_P(
    All,
    LostRanks,
    ::testing::Combine(::testing::Values(RankTransport::kTcp, RankTransport::kSharedMemory),
                       ::testing::Values(LossCase{"HubKilled", 0, SIGKILL},
                                         LossCase{"HubStopped", 0, SIGSTOP},
                                         LossCase{"OtherKilled", 1, SIGKILL},
                                         LossCase{"OtherStopped", 2, SIGSTOP}),
                       ::testing::Values(Doing::kSumming, Doing::kGathering, Doing::kWaiting)),
    [](const auto& param) {
      return StrCat(testing::TestNameOf(std::get<0>(param.param)),
                    std::get<1>(param.param).name,
                    NameOf(std::get<2>(param.param)));
    });

class MeetingRanks : public ::testing::TestWithParam<LossCase> {};

// It comes to the meeting, and no further.
pid_t StartRankThatOnlyComes(const RankOptions& options, int signal) {
  const pid_t pid = fork();
  if (pid == 0) {
    RankWatch watch({.rank = options.rank, .beat = std::chrono::milliseconds(options.beat_ms)});
    watch.Start();
    const auto links = MeetRanks(options, watch);
    std::byte offered{};  // rank 0 offers memory when all have come
    if (options.rank != 0 &&
        !ReceiveAll(links->front()[Channel::kMain].get(), std::span(&offered, 1)).ok()) {
      _exit(1);
    }
    raise(signal);
    _exit(1);
  }
  return pid;
}

pid_t StartRankThatDoesNotMeet(const RankOptions& options, const std::string& why) {
  const pid_t pid = fork();
  if (pid == 0) {
    const Status status = MakeCommunicator(options).status();
    std::fprintf(stderr, "rank %d: %s\n", static_cast<int>(options.rank), status.message().c_str());
    _exit(status.reason() == kReasonRankLost && status.message() == why ? 0 : 97);
  }
  return pid;
}

// While the ranks find out whether they can share memory.
TEST_P(MeetingRanks, AreNamedByEveryOtherRankLongBeforeTheMeetingIsOver) {
  const int64_t lost = GetParam().lost;
  const bool killed = GetParam().signal == SIGKILL;
  const std::string why = StrCat("rank ",
                                 lost,
                                 killed ? " is gone" : " has shown no sign of life for 2.0 s",
                                 "; it was at step 0, starting");
  const Meeting meeting;
  std::vector<pid_t> pids;
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    RankOptions options = meeting.Options(rank, kRanks);
    options.meet_ms = 300'000;
    pids.push_back(rank == lost ? StartRankThatOnlyComes(options, GetParam().signal)
                                : StartRankThatDoesNotMeet(options, why));
  }
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    if (rank != lost) {
      EXPECT_EQ(ExitCodeOf(pids[static_cast<size_t>(rank)]), 0) << "rank " << rank;
    }
  }
  kill(pids[static_cast<size_t>(lost)], SIGKILL);
  EXPECT_EQ(ExitCodeOf(pids[static_cast<size_t>(lost)]), 1000 + SIGKILL);
}

INSTANTIATE_TEST_SUITE_P(All,
                         MeetingRanks,
                         ::testing::Values(LossCase{"HubKilled", 0, SIGKILL},
                                           LossCase{"HubStopped", 0, SIGSTOP},
                                           LossCase{"OtherKilled", 1, SIGKILL},
                                           LossCase{"OtherStopped", 2, SIGSTOP}),
                         [](const auto& tested) { return tested.param.name; });

// The machine has no time for the one who watches, again and again.
TEST(StalledRanks, FindTheSilentOneAllTheSame) {
  const Meeting meeting;
  const pid_t watching = StartRankProcess(meeting.Options(0, 2), [](Communicator& comm) {
    return Names(Do(comm, Doing::kWaiting, 1), 1) ? 0 : 97;
  });
  const pid_t silent = StartRankProcess(meeting.Options(1, 2), [](Communicator& comm) {
    comm.SetPlace(42, "training");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));  // until it has told so
    return raise(SIGSTOP);
  });
  int status = 0;
  ASSERT_EQ(waitpid(silent, &status, WUNTRACED), silent);
  ASSERT_TRUE(WIFSTOPPED(status));
  siginfo_t ended{};
  for (int stalls = 0; stalls < 20 && ended.si_pid == 0; ++stalls) {
    kill(watching, SIGSTOP);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    kill(watching, SIGCONT);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    waitid(P_PID, static_cast<id_t>(watching), &ended, WEXITED | WNOHANG | WNOWAIT);
  }
  EXPECT_EQ(ended.si_pid, watching);
  kill(watching, SIGKILL);
  kill(silent, SIGKILL);
  EXPECT_EQ(ExitCodeOf(watching), 0);
  EXPECT_EQ(ExitCodeOf(silent), 1000 + SIGKILL);
}

class ComputingRanks : public ::testing::TestWithParam<RankTransport> {};

INSTANTIATE_TEST_SUITE_P(All,
                         ComputingRanks,
                         ::testing::Values(RankTransport::kTcp, RankTransport::kSharedMemory),
                         [](const auto& param) { return testing::TestNameOf(param.param); });

[[noreturn]] void Compute() {
  while (true) {
    pause();
  }
}

TEST_P(ComputingRanks, EndWhenAnotherIsLost) {
  const Meeting meeting;
  RankOptions options = meeting.Options(0, 2, GetParam());
  options.leave_ms = 100;
  const pid_t computing = StartRankProcess(options, [](Communicator&) -> int { Compute(); });
  const pid_t lost =
      StartRankProcess(meeting.Options(1, 2, GetParam()), [](Communicator&) -> int { _exit(1); });
  EXPECT_EQ(ExitCodeOf(lost), 1);
  EXPECT_EQ(ExitCodeOf(computing), ExitCodeFor(Code::kUnavailable));
}

// A thread in the background hears of it, but nobody has told the one that computes.
TEST_P(ComputingRanks, EndThoughAThreadInTheBackgroundKnows) {
  const Meeting meeting;
  RankOptions options = meeting.Options(0, 2, GetParam());
  options.leave_ms = 200;
  const pid_t computing = StartRankProcess(options, [](Communicator& comm) -> int {
    std::thread background([&comm] {
      if (comm.background().Barrier().reason() != kReasonRankLost) {
        _exit(97);
      }
    });
    Compute();
  });
  const pid_t lost =
      StartRankProcess(meeting.Options(1, 2, GetParam()), [](Communicator&) -> int { _exit(1); });
  EXPECT_EQ(ExitCodeOf(lost), 1);
  EXPECT_EQ(ExitCodeOf(computing), ExitCodeFor(Code::kUnavailable));
}

TEST_P(ComputingRanks, EndInTheirOwnWayOnceTheyKnow) {
  const Meeting meeting;
  RankOptions options = meeting.Options(0, 2, GetParam());
  options.leave_ms = 200;
  const pid_t telling = StartRankProcess(options, [](Communicator& comm) {
    while (comm.background().Barrier().ok()) {
    }
    const bool named = comm.background().failure().reason() == kReasonRankLost;
    std::this_thread::sleep_for(std::chrono::milliseconds(600));  // its last words take a while
    return named ? 42 : 97;
  });
  const pid_t lost =
      StartRankProcess(meeting.Options(1, 2, GetParam()), [](Communicator&) -> int { _exit(1); });
  EXPECT_EQ(ExitCodeOf(lost), 1);
  EXPECT_EQ(ExitCodeOf(telling), 42);
}

}  // namespace
}  // namespace mft
