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

TEST(Choice, SurvivesJson) {
  Choice choice;
  const Choice none = ChoiceFromJson(ChoiceToJson(choice)).value();
  EXPECT_EQ(none.best_step, 0);
  EXPECT_EQ(none.best_loss, Choice::kNone);
  choice.Observe(1, 0.1 + 0.2, 0);
  choice.Observe(2, 4, 0);
  const Choice read = ChoiceFromJson(ParseJson(DumpJson(ChoiceToJson(choice))).value()).value();
  EXPECT_EQ(read.best_step, 1);
  EXPECT_EQ(read.best_loss, 0.1 + 0.2);
  EXPECT_EQ(read.reference_loss, 0.1 + 0.2);
  EXPECT_EQ(read.waited, 1);
  EXPECT_EQ(read.last_loss, 4);
}

TEST(Choice, RefusesJsonThatIsNoChoice) {
  for (const char* text :
       {R"({})",
        R"({"best_step":-1,"best_loss":1,"reference_loss":1,"waited":0,"last_loss":1})",
        R"({"best_step":1,"best_loss":"1","reference_loss":1,"waited":0,"last_loss":1})",
        R"({"best_step":1,"best_loss":1,"reference_loss":1,"waited":1.5,"last_loss":1})",
        R"({"best_step":1,"best_loss":1,"reference_loss":1,"waited":0})"}) {
    EXPECT_FALSE(ChoiceFromJson(ParseJson(text).value()).ok()) << text;
  }
}

}  // namespace
}  // namespace mft
