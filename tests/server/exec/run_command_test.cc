// SPDX-License-Identifier: Apache-2.0
#include "server/exec/run_command.h"

#include <stdlib.h>

#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mft::server {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kDeadlineMs = 20'000;

Result<CommandOutput> Shell(const std::string& body, int64_t deadline_ms = kDeadlineMs) {
  return RunCommand({"sh", "-c", body}, deadline_ms, std::stop_token());
}

TEST(RunCommand, GivesBackExitCodeAndBothStreams) {
  const Result<CommandOutput> output = Shell("echo out; echo err >&2; exit 3");
  ASSERT_TRUE(output.ok()) << output.status().ToString();
  EXPECT_EQ(output->exit_code, 3);
  EXPECT_EQ(output->out, "out\n");
  EXPECT_EQ(output->err, "err\n");
}

TEST(RunCommand, PassesWordsAsTheyAre) {
  const Result<CommandOutput> output =
      RunCommand({"printf", "%s|", "a b", "$(id)", "'", ""}, kDeadlineMs, std::stop_token());
  EXPECT_EQ(output->out, "a b|$(id)|'||");
}

TEST(RunCommand, AProgramThatIsNotThereIsNamed) {
  const Result<CommandOutput> output =
      RunCommand({"/nowhere/sbatch"}, kDeadlineMs, std::stop_token());
  EXPECT_THAT(output.status().message(), HasSubstr("/nowhere/sbatch"));
}

TEST(RunCommand, ReadsMoreThanAPipeHolds) {
  const Result<CommandOutput> output =
      Shell("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2");
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->out.size(), 300'000u);
  EXPECT_EQ(output->err.size(), 300'000u);
}

TEST(RunCommand, EndlessOutputIsCutOff) {
  EXPECT_EQ(Shell("cat /dev/zero").status().code(), Code::kResourceExhausted);
}

TEST(RunCommand, KillsWhatTakesTooLongWithItsChildren) {
  const auto begin = std::chrono::steady_clock::now();
  const Result<CommandOutput> output = Shell("sleep 100 & sleep 100", 50);
  EXPECT_EQ(output.status().code(), Code::kDeadlineExceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(RunCommand, AChildThatKeepsTheOutputOpenIsWaitedForToo) {
  EXPECT_EQ(Shell("(sleep 0.05; echo late) &")->out, "late\n");
}

TEST(RunCommand, ASignalIsAnExitCode) {
  EXPECT_EQ(Shell("kill -9 $$")->exit_code, 137);
}

TEST(RunCommand, TheDaemonsOwnVariablesStayWithIt) {
  setenv("NOTIFY_SOCKET", "/run/x", 1);
  setenv("MFT_ATTEMPT", "outer", 1);
  const Result<CommandOutput> output = Shell("echo \"[$NOTIFY_SOCKET$MFT_ATTEMPT]\"");
  unsetenv("NOTIFY_SOCKET");
  unsetenv("MFT_ATTEMPT");
  EXPECT_EQ(output->out, "[]\n");
}

TEST(RunCommand, AStopEndsItSoon) {
  std::stop_source stop;
  stop.request_stop();
  const auto begin = std::chrono::steady_clock::now();
  const Result<CommandOutput> output = RunCommand({"sleep", "100"}, kDeadlineMs, stop.get_token());
  EXPECT_EQ(output.status().code(), Code::kDeadlineExceeded);
  EXPECT_THAT(output.status().message(), HasSubstr("stops"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

}  // namespace
}  // namespace mft::server
