// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/stop_plan.h"

#include <gtest/gtest.h>

namespace mft::runner {
namespace {

constexpr int64_t kSecond = 1'000'000;
constexpr int64_t kStart = 1000 * kSecond;
constexpr int64_t kGraceMs = 120'000;

TEST(StopPlan, DoesNothingUntilSomethingHappens) {
  StopPlan plan(kStart, kGraceMs, 0);
  EXPECT_EQ(plan.Next(kStart + 1'000'000 * kSecond), StopAction::kNone);
  EXPECT_FALSE(plan.Deadline().has_value());
}

TEST(StopPlan, TerminatesOnceAndKillsAfterTheGracePeriod) {
  StopPlan plan(kStart, kGraceMs, 0);
  plan.Request(kStart);
  EXPECT_EQ(plan.Next(kStart), StopAction::kTerminate);
  EXPECT_EQ(plan.Deadline(), kStart + 120 * kSecond);
  EXPECT_EQ(plan.Next(kStart + 120 * kSecond - 1), StopAction::kNone);
  EXPECT_EQ(plan.Next(kStart + 120 * kSecond), StopAction::kKill);
  EXPECT_EQ(plan.cause(), StopCause::kRequested);
  EXPECT_TRUE(plan.killed());
}

TEST(StopPlan, RepeatedRequestsDoNotMoveTheDeadline) {
  StopPlan plan(kStart, kGraceMs, 0);
  plan.Request(kStart);
  EXPECT_EQ(plan.Next(kStart), StopAction::kTerminate);
  plan.Request(kStart + 60 * kSecond);
  EXPECT_EQ(plan.Next(kStart + 60 * kSecond), StopAction::kNone);
  EXPECT_EQ(plan.Next(kStart + 120 * kSecond), StopAction::kKill);
}

TEST(StopPlan, KillsAgainUntilNothingIsLeft) {
  StopPlan plan(kStart, 0, 0);
  plan.Request(kStart);
  EXPECT_EQ(plan.Next(kStart), StopAction::kTerminate);
  EXPECT_EQ(plan.Next(kStart), StopAction::kKill);
  EXPECT_EQ(plan.Next(kStart + 1), StopAction::kNone);
  ASSERT_TRUE(plan.Deadline().has_value());
  EXPECT_EQ(plan.Next(*plan.Deadline()), StopAction::kKill);
}

TEST(StopPlan, TheTimeLimitGivesTheSameGracePeriod) {
  StopPlan plan(kStart, kGraceMs, 3'600'000);
  EXPECT_EQ(plan.Deadline(), kStart + 3600 * kSecond);
  EXPECT_EQ(plan.Next(kStart + 3600 * kSecond - 1), StopAction::kNone);
  EXPECT_EQ(plan.Next(kStart + 3600 * kSecond), StopAction::kTerminate);
  EXPECT_EQ(plan.cause(), StopCause::kTimeLimit);
  EXPECT_EQ(plan.Deadline(), kStart + 3720 * kSecond);
}

TEST(StopPlan, ARequestBeforeTheTimeLimitStaysTheCause) {
  StopPlan plan(kStart, kGraceMs, 10'000);
  plan.Request(kStart + 9 * kSecond);
  EXPECT_EQ(plan.Next(kStart + 9 * kSecond), StopAction::kTerminate);
  EXPECT_EQ(plan.Next(kStart + 20 * kSecond), StopAction::kNone);
  EXPECT_EQ(plan.cause(), StopCause::kRequested);
}

TEST(StopPlan, AFailedRankShortensThePatienceWithTheOthers) {
  StopPlan plan(kStart, kGraceMs, 0);
  plan.Request(kStart);
  EXPECT_EQ(plan.Next(kStart), StopAction::kTerminate);
  plan.RankFailed(kStart + kSecond);
  EXPECT_EQ(plan.Next(kStart + kSecond), StopAction::kNone);
  EXPECT_EQ(plan.Next(kStart + 6 * kSecond), StopAction::kKill);
}

TEST(StopPlan, APatienceLongerThanTheGracePeriodMakesNoSense) {
  StopPlan plan(kStart, 200, 0);
  plan.RankFailed(kStart);
  EXPECT_EQ(plan.Next(kStart), StopAction::kTerminate);
  EXPECT_EQ(plan.Deadline(), kStart + 200'000);
  EXPECT_EQ(plan.cause(), StopCause::kRankFailed);
}

}  // namespace
}  // namespace mft::runner
