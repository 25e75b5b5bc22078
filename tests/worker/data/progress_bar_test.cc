// SPDX-License-Identifier: Apache-2.0
#include "worker/data/progress_bar.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "tests/support/fake_clock.h"
#include "tests/support/temp_dir.h"

namespace mft::data {
namespace {

// Both ends of a pseudo-terminal.
struct Terminal {
  Terminal() : master(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)) {
    EXPECT_EQ(grantpt(master.get()), 0);
    EXPECT_EQ(unlockpt(master.get()), 0);
    std::array<char, 128> name{};
    EXPECT_EQ(ptsname_r(master.get(), name.data(), name.size()), 0);
    slave = UniqueFd(open(name.data(), O_RDWR | O_NOCTTY));
    EXPECT_TRUE(slave.valid());
  }
  std::string Read() const {
    std::array<char, 4096> buffer{};
    const ssize_t got = read(master.get(), buffer.data(), buffer.size());
    return {buffer.data(), got > 0 ? static_cast<size_t>(got) : 0};
  }

  UniqueFd master;
  UniqueFd slave;
};

TEST(ProgressText, SaysHowFarAndHowLong) {
  EXPECT_EQ(ProgressText({.done = 1 << 20, .total = 4 << 20, .seconds = 6}, "a.jsonl", 200),
            "[######------------------]  25 %  1.0 MiB of 4.0 MiB, 18.0 s left  a.jsonl");
  EXPECT_EQ(ProgressText({.done = 9, .total = 0, .seconds = 0}, "a", 200).substr(0, 34),
            "[########################] 100 %  ");
  const Progress progress = {.done = 1, .total = 4, .seconds = 0};
  const std::string whole = ProgressText(progress, "a\xE2\x82\xAC", 200);
  EXPECT_EQ(ProgressText(progress, "a\xE2\x82\xAC", whole.size() - 1),
            whole.substr(0, whole.size() - 3));
}

TEST(ProgressBar, IsDrawnOnATerminalAndTakenAway) {
  setenv("TERM", "xterm", 1);
  const Terminal terminal;
  testing::FakeClock clock;
  ProgressBar bar(terminal.slave.get(), 100, clock);
  bar.Update("a.jsonl", 10);
  EXPECT_EQ(terminal.Read(), "");  // most checks are done by then
  clock.Advance(1'000'000);
  bar.Update("a.jsonl", 20);
  EXPECT_NE(terminal.Read().find("20 %"), std::string::npos);
  bar.Update("a.jsonl", 30);
  EXPECT_EQ(terminal.Read(), "");  // too soon
  bar.Clear();
  EXPECT_EQ(terminal.Read(), "\r\x1b[K");
  bar.Clear();
  EXPECT_EQ(terminal.Read(), "");
}

TEST(ProgressBar, WritesNothingElsewhere) {
  const testing::TempDir dir;
  const UniqueFd file = OpenFile(dir.File("err"), O_WRONLY | O_CREAT).value();
  testing::FakeClock clock;
  {
    ProgressBar bar(file.get(), 100, clock);
    clock.Advance(10'000'000);
    bar.Update("a", 50);
  }
  EXPECT_EQ(FileSize(dir.File("err")).value(), 0);
}

}  // namespace
}  // namespace mft::data
