// SPDX-License-Identifier: Apache-2.0
#include "server/control/slurm_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mft::server {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kForget = 10;

SlurmJob In(const std::string& state) {
  return {.id = "7", .state = state, .reason = "None", .node = "n1"};
}

TEST(SlurmWatch, LivesAsLongAsSlurmSaysSo) {
  SlurmWatch watch;
  watch.SubmitBegins();
  EXPECT_FALSE(watch.Over(1'000, kForget)) << "sbatch may take as long as it wants";
  watch.SubmitEnded(std::string("7"));
  EXPECT_EQ(watch.job().id, "7");
  for (const char* state :
       {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "NEW"}) {
    watch.Listed(In(state), 1);
    EXPECT_FALSE(watch.Over(1'000'000, kForget)) << state;
  }
  watch.Listed(In("COMPLETED"), 2);
  EXPECT_TRUE(watch.Over(2, kForget));
}

TEST(SlurmWatch, AListingThatFailedSaysNothing) {
  SlurmWatch watch("7");
  EXPECT_FALSE(watch.Over(1'000'000, kForget)) << "never listed: nobody knows";
  watch.ListFailed();
  EXPECT_FALSE(watch.Over(1'000'000, kForget));
  watch.Listed(In("RUNNING"), 5);
  watch.ListFailed();
  EXPECT_FALSE(watch.Over(1'000'000, kForget));
}

TEST(SlurmWatch, MissingCountsOnlyForAWhileInARow) {
  SlurmWatch watch("7");
  watch.Listed(std::nullopt, 100);
  watch.Listed(std::nullopt, 105);
  EXPECT_FALSE(watch.Over(109, kForget));
  EXPECT_TRUE(watch.Over(110, kForget));
  watch.Listed(In("RUNNING"), 111);
  EXPECT_FALSE(watch.Over(1'000, kForget)) << "it is there after all";
  watch.Listed(std::nullopt, 2'000);
  EXPECT_FALSE(watch.Over(2'001, kForget));
}

TEST(SlurmWatch, AListingFromBeforeTheSubmitEndedDoesNotCount) {
  SlurmWatch watch;
  watch.SubmitBegins();
  watch.Listed(std::nullopt, 1);
  watch.SubmitEnded(std::string("7"));
  EXPECT_FALSE(watch.Over(1'000, kForget));
  EXPECT_FALSE(watch.TakeNews());
}

TEST(SlurmWatch, ASubmitThatFailedMayHaveWorked) {
  SlurmWatch watch;
  watch.SubmitBegins();
  watch.SubmitEnded(Unavailable("sbatch: the answer was lost"));
  EXPECT_FALSE(watch.Over(1'000, kForget));
  watch.Listed(In("PENDING"), 1'000);
  EXPECT_TRUE(watch.waiting());
  EXPECT_FALSE(watch.Over(1'000'000, kForget));
}

TEST(SlurmWatch, OnlyWhatSlurmHoldsBackWaits) {
  SlurmWatch watch("7");
  EXPECT_FALSE(watch.waiting()) << "not known: it may run and write";
  watch.Listed(In("PENDING"), 1);
  EXPECT_TRUE(watch.waiting());
  watch.Listed(In("RUNNING"), 2);
  EXPECT_FALSE(watch.waiting());
}

TEST(SlurmWatch, EachListingIsNewsOnce) {
  SlurmWatch watch("7");
  watch.Listed(In("COMPLETED"), 1);
  EXPECT_TRUE(watch.TakeNews());
  EXPECT_FALSE(watch.TakeNews());
}

AttemptEnd::Kind EndOf(const std::string& state, bool began = true) {
  SlurmWatch watch("7");
  watch.Listed(In(state), 1);
  return watch.EndWithoutResult(began, "/log").kind;
}

TEST(SlurmWatch, TellsWhyThereIsNoResult) {
  EXPECT_EQ(EndOf("NODE_FAIL"), AttemptEnd::Kind::kRebooted);
  EXPECT_EQ(EndOf("PREEMPTED"), AttemptEnd::Kind::kInterrupted);
  EXPECT_EQ(EndOf("FAILED"), AttemptEnd::Kind::kLost);
  EXPECT_EQ(EndOf("CANCELLED", false), AttemptEnd::Kind::kLost)
      << "or scancel would be undone forever";
  SlurmWatch watch("7");
  watch.Listed(In("OUT_OF_MEMORY"), 1);
  EXPECT_EQ(watch.EndWithoutResult(true, "/log").detail,
            "Slurm job 7 ended as OUT_OF_MEMORY; see /log");
  watch.Listed(std::nullopt, 2);
  EXPECT_THAT(watch.EndWithoutResult(true, "/log").detail, HasSubstr("does not know its job 7"));
  EXPECT_EQ(watch.EndWithoutResult(true, "/log").kind, AttemptEnd::Kind::kLost);
  EXPECT_EQ(watch.EndWithoutResult(false, "/log").kind, AttemptEnd::Kind::kInterrupted)
      << "a controller that was killed forgets the newest jobs";
}

TEST(SlurmWatch, ARefusedSubmitIsAFailedStartAndAnUnreachableSlurmIsNot) {
  SlurmWatch refused;
  refused.SubmitBegins();
  refused.SubmitEnded(Unavailable("sbatch: invalid partition"));
  refused.Listed(std::nullopt, 1);
  EXPECT_EQ(refused.EndWithoutResult(false, "").kind, AttemptEnd::Kind::kStartFailed);
  EXPECT_EQ(refused.EndWithoutResult(false, "").detail, "sbatch: invalid partition");
  refused.ListFailed();
  EXPECT_EQ(refused.EndWithoutResult(false, "").kind, AttemptEnd::Kind::kInterrupted);
  const SlurmWatch adopted;
  EXPECT_EQ(adopted.EndWithoutResult(false, "").kind, AttemptEnd::Kind::kInterrupted);
  EXPECT_EQ(adopted.EndWithoutResult(true, "").kind, AttemptEnd::Kind::kLost);
}

}  // namespace
}  // namespace mft::server
