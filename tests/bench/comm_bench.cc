// SPDX-License-Identifier: Apache-2.0
// What ranks of one host reach with each transport: build/release/tests/comm_bench [RANKS]. Each
// rank is a process; a line tells the median of rounds, in gigabytes of summed or gathered values a
// second and rank.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/base/strings.h"
#include "worker/comm/communicator.h"

namespace mft {
namespace {

constexpr int kRounds = 15;
constexpr size_t kMiB = size_t{1} << 20;

void Require(const Status& status) {
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    _exit(1);
  }
}

// Median seconds of a call.
double Time(Communicator& comm, const std::function<Status()>& call) {
  std::vector<double> seconds;
  for (int round = 0; round <= kRounds; ++round) {
    Require(comm.Barrier());
    const auto begin = std::chrono::steady_clock::now();
    Require(call());
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    if (round > 0) {  // the first one touches its memory
      seconds.push_back(taken.count());
    }
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

void Measure(Communicator& comm, RankTransport transport) {
  for (const size_t bytes : {size_t{64}, kMiB, 16 * kMiB, 64 * kMiB}) {
    std::vector<float> values(bytes / sizeof(float), 1.0F);
    const double sum = Time(comm, [&] { return comm.AllReduceSum(std::span(values)); });
    const double gather =
        Time(comm, [&] { return comm.AllGather(std::as_writable_bytes(std::span(values))); });
    if (comm.rank() == 0) {
      std::printf("%-13s  %9zu bytes  sum %9.1f us %6.2f GB/s  gather %9.1f us %6.2f GB/s\n",
                  std::string(RankTransportName(transport)).c_str(),
                  bytes,
                  sum * 1e6,
                  static_cast<double>(bytes) / sum / 1e9,
                  gather * 1e6,
                  static_cast<double>(bytes) / gather / 1e9);
      std::fflush(stdout);
    }
  }
}

void RunRank(const RankOptions& options) {
  const auto comm = MakeCommunicator(options);
  Require(comm.status());
  Measure(**comm, options.transport);
}

int Run(int64_t world_size, RankTransport transport) {
  const std::string file = StrCat("/tmp/comm_bench.", getpid(), ".json");
  std::vector<pid_t> pids;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      RunRank({.rank = rank,
               .world_size = world_size,
               .rendezvous_file = file,
               .token = "comm_bench",
               .transport = transport});
      _exit(0);
    }
    pids.push_back(pid);
  }
  int failures = 0;
  for (const pid_t pid : pids) {
    int status = 0;
    waitpid(pid, &status, 0);
    failures += status == 0 ? 0 : 1;
  }
  return failures;
}

}  // namespace
}  // namespace mft

int main(int argc, char** argv) {
  const int64_t world_size = argc > 1 ? std::atoll(argv[1]) : 2;
  return mft::Run(world_size, mft::RankTransport::kTcp) +
         mft::Run(world_size, mft::RankTransport::kSharedMemory);
}
