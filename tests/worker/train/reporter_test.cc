// SPDX-License-Identifier: Apache-2.0
#include "worker/train/reporter.h"

#include <signal.h>

#include <vector>

#include <gtest/gtest.h>

#include "common/journal/tailer.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using std::chrono::milliseconds;
using testing::TempDir;

struct Fixture {
  TempDir dir;
  StopSignals signals;
  std::unique_ptr<Reporter> reporter;
  Fixture() {
    reporter = Reporter::Open({.attempt_dir = dir.path(),
                               .attempt_id = "a",
                               .disk_retry = milliseconds(1),
                               .disk_give_up = milliseconds(5)},
                              signals,
                              SystemClock())
                   .value();
  }
  std::vector<std::string> Phases() const {
    JournalTailer tailer(dir.File("rank-0.jsonl"), {});
    bool more = false;
    const auto items = tailer.Read(1 << 20, &more);
    std::vector<std::string> phases;
    for (const TailedItem& item : items.value()) {
      if (const auto* phase = std::get_if<PhaseRecord>(&std::get<Record>(item.item).body)) {
        phases.push_back(phase->phase);
      }
    }
    return phases;
  }
};

TEST(Reporter, WaitsForDiskSpaceAndSaysSo) {
  Fixture f;
  ASSERT_TRUE(f.reporter->Phase(kPhaseSaving).ok());
  int calls = 0;
  const Status status = f.reporter->Persist(
      [&] { return ++calls < 3 ? ResourceExhausted("No space left on device") : Status::Ok(); });
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(f.Phases(), (std::vector<std::string>{"saving", "waiting for disk space", "saving"}));
}

TEST(Reporter, GivesUpAfterTheWholeTime) {
  Fixture f;
  int calls = 0;
  const Status status = f.reporter->Persist([&] {
    ++calls;
    return ResourceExhausted("run/x: No space left on device");
  });
  EXPECT_EQ(status.reason(), "DISK_FULL");
  EXPECT_NE(status.message().find("run/x"), std::string::npos);
  EXPECT_EQ(calls, 6);
}

TEST(Reporter, AStopRequestEndsTheWait) {
  Fixture f;
  int calls = 0;
  const Status status = f.reporter->Persist([&] {
    if (++calls == 2) {
      raise(SIGTERM);
    }
    return ResourceExhausted("No space left on device");
  });
  EXPECT_EQ(status.reason(), "DISK_FULL");
  EXPECT_EQ(calls, 2);
}

TEST(Reporter, OtherFailuresAreNotRepeated) {
  Fixture f;
  int calls = 0;
  EXPECT_EQ(f.reporter
                ->Persist([&] {
                  ++calls;
                  return PermissionDenied("run");
                })
                .code(),
            Code::kPermissionDenied);
  EXPECT_EQ(calls, 1);
}

TEST(Reporter, BeatsAndMemoryAreReadable) {
  Fixture f;
  f.reporter->Beat(7);
  const auto beat = ReadHeartbeat(f.dir.File("rank-0.beat"));
  ASSERT_TRUE(beat.has_value());
  EXPECT_EQ(beat->step, 7);
  EXPECT_GT(beat->memory_bytes, 1 << 20);
  const ProcessMemory memory = ReadProcessMemory();
  EXPECT_GE(memory.peak_bytes, memory.resident_bytes);
}

TEST(StopSignals, AreDeliveredAfterTheHandlersAreSet) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  raise(SIGTERM);
  raise(SIGUSR1);
  raise(SIGUSR1);
  StopSignals signals;
  EXPECT_TRUE(signals.stop_requested());
  EXPECT_TRUE(signals.TakeCheckpointRequest());
  EXPECT_FALSE(signals.TakeCheckpointRequest());
  EXPECT_TRUE(signals.stop_requested());
}

}  // namespace
}  // namespace mft
