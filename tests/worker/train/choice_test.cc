// SPDX-License-Identifier: Apache-2.0
#include "worker/train/choice.h"

#include <cmath>

#include <gtest/gtest.h>

namespace mft {
namespace {

TEST(Choice, TheLowestLossIsTheBestHoweverLittleLower) {
  Choice choice;
  EXPECT_TRUE(choice.Observe(10, 2.0, 0.5));
  EXPECT_TRUE(choice.Observe(20, 1.9, 0.5));
  EXPECT_FALSE(choice.Observe(30, 1.9, 0.5));
  EXPECT_FALSE(choice.Observe(40, 1.95, 0.5));
  EXPECT_EQ(choice.best_step, 20);
  EXPECT_EQ(choice.best_loss, 1.9);
  EXPECT_EQ(choice.last_loss, 1.95);
}

TEST(Choice, WaitsFromTheLastLossThatImprovedByMoreThanTheDelta) {
  const EarlyStopSpec stop{.patience = 2, .min_delta = 0.5};
  Choice choice;
  choice.Observe(1, 3.0, stop.min_delta);
  EXPECT_EQ(choice.waited, 0);
  choice.Observe(2, 2.75, stop.min_delta);
  EXPECT_EQ(choice.waited, 1);
  EXPECT_FALSE(choice.ShouldStop(stop));
  choice.Observe(
      3, 2.25, stop.min_delta);  // 0.75 below 3.0, although 0.5 below the evaluation before
  EXPECT_EQ(choice.waited, 0);
  choice.Observe(4, 1.75, stop.min_delta);  // by the delta, not by more
  choice.Observe(5, 1.75, stop.min_delta);
  EXPECT_TRUE(choice.ShouldStop(stop));
  EXPECT_FALSE(choice.ShouldStop({.patience = 3}));
  EXPECT_FALSE(choice.ShouldStop({}));
}

TEST(Choice, ALossThatIsNotFiniteIsNeitherBestNorAnImprovement) {
  Choice choice;
  EXPECT_FALSE(choice.Observe(1, std::nan(""), 0));
  EXPECT_FALSE(choice.Observe(2, INFINITY, 0));
  EXPECT_EQ(choice.best_step, 0);
  EXPECT_EQ(choice.waited, 2);
  EXPECT_TRUE(choice.Observe(3, 5.0, 0));
  EXPECT_EQ(choice.waited, 0);
}

}  // namespace
}  // namespace mft
