// SPDX-License-Identifier: Apache-2.0
#include "worker/train/attention_choice.h"

#include <cmath>
#include <limits>
#include <stdexcept>

#include <gtest/gtest.h>

#include "tests/support/fake_clock.h"

namespace mft {
namespace {

using Outputs = std::vector<std::vector<float>>;

const Outputs kOutputs = {{1, -2, 3}, {0.5F, 0.25F}};

class AttentionChoiceTest : public ::testing::Test {
 protected:
  // A run of which takes so long.
  AttentionCandidate Candidate(const std::string& name, int64_t micros) {
    return {.name = name,
            .deterministic = true,
            .outputs =
                [this] {
                  ++compared_;
                  return kOutputs;
                },
            .run =
                [this, micros] {
                  ++runs_;
                  clock_.Advance(micros);
                }};
  }
  AttentionChoice Choose(const std::vector<AttentionCandidate>& candidates,
                         const AttentionWish& wish = {}) {
    const auto choice = ChooseAttention(candidates, wish, clock_);
    EXPECT_TRUE(choice.ok()) << choice.status().message();
    return choice.ok() ? *choice : AttentionChoice{};
  }

  testing::FakeClock clock_;
  int compared_ = 0;
  int runs_ = 0;
};

TEST_F(AttentionChoiceTest, TheFastestWins) {
  const AttentionChoice choice =
      Choose({Candidate("rows", 9000), Candidate("flash", 2000), Candidate("cudnn", 2500)});
  EXPECT_EQ(choice.name, "flash");
  EXPECT_TRUE(choice.left_out.empty());
  ASSERT_EQ(choice.times.size(), 3U);
  EXPECT_EQ(choice.times[0].name, "flash");
  EXPECT_NEAR(choice.times[0].seconds, 0.002, 1e-9);
  EXPECT_EQ(choice.times[1].name, "cudnn");
  EXPECT_EQ(choice.times[2].name, "rows");
}

TEST_F(AttentionChoiceTest, WhatARunTakesOnceDoesNotCount) {
  AttentionCandidate plans = Candidate("cudnn", 0);
  bool planned = false;
  plans.run = [&] {
    clock_.Advance(planned ? 1000 : 3'000'000);
    planned = true;
  };
  EXPECT_EQ(Choose({Candidate("rows", 9000), Candidate("flash", 2000), plans}).name, "cudnn");
}

TEST_F(AttentionChoiceTest, OneSlowRunDoesNotDecide) {
  AttentionCandidate hiccup = Candidate("flash", 0);
  int run = 0;
  hiccup.run = [&] { clock_.Advance(++run == 3 ? 2900 : 1000); };
  EXPECT_EQ(Choose({Candidate("rows", 9000), hiccup, Candidate("cudnn", 1200)}).name, "flash");
}

TEST_F(AttentionChoiceTest, WhatHasLostIsNotRunOn) {
  Choose({Candidate("rows", 900'000), Candidate("flash", 1000)});
  EXPECT_EQ(runs_, 6 + 2);
}

TEST_F(AttentionChoiceTest, ALastResortIsMeasuredOnlyWhereNothingElseIsLeft) {
  AttentionCandidate rows = Candidate("rows", 1);
  rows.last_resort = true;
  AttentionCandidate flash = Candidate("flash", 2000);
  EXPECT_EQ(Choose({rows, flash}).name, "flash");
  EXPECT_EQ(runs_, 6);
  flash.run = [] { throw std::runtime_error("no memory"); };
  EXPECT_EQ(Choose({rows, flash}).name, "rows");
  EXPECT_EQ(runs_, 12);
}

TEST_F(AttentionChoiceTest, WhatFailsIsLeftOutWithItsReason) {
  AttentionCandidate bad = Candidate("cudnn", 1);
  bad.outputs = []() -> Outputs { throw std::runtime_error("no plan"); };
  AttentionCandidate later = Candidate("flash", 1);
  later.run = [] { throw std::runtime_error("no memory"); };
  const AttentionChoice choice = Choose({Candidate("rows", 9000), later, bad});
  EXPECT_EQ(choice.name, "rows");
  EXPECT_EQ(choice.left_out, (std::vector<std::string>{"cudnn: no plan", "flash: no memory"}));
}

TEST_F(AttentionChoiceTest, WhatDisagreesIsLeftOut) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Outputs& wrong : {Outputs{{1, -2, 3}, {0.5F, 0.28F}},
                               Outputs{{0, 0, 0}, {0.5F, 0.25F}},
                               Outputs{{1, -2, 3}},
                               Outputs{{1, -2, 3}, {0.5F}},
                               Outputs{{1, -2, nan}, {0.5F, 0.25F}}}) {
    AttentionCandidate bad = Candidate("cudnn", 1);
    bad.outputs = [&] { return wrong; };
    const AttentionChoice choice = Choose({Candidate("rows", 9000), bad});
    EXPECT_EQ(choice.name, "rows");
    ASSERT_EQ(choice.left_out.size(), 1U);
    EXPECT_EQ(choice.left_out[0].substr(0, 7), "cudnn: ");
  }
  AttentionCandidate rounded = Candidate("cudnn", 1);
  rounded.outputs = [] { return Outputs{{1.01F, -2.01F, 2.98F}, {0.5F, 0.25F}}; };
  EXPECT_EQ(Choose({Candidate("rows", 9000), rounded}).name, "cudnn");
}

TEST_F(AttentionChoiceTest, TheFirstThatWorksIsTheMeasureOfTheOthers) {
  AttentionCandidate broken = Candidate("rows", 1);
  broken.outputs = [] { return Outputs{{INFINITY, 0, 0}, {0, 0}}; };
  AttentionCandidate wrong = Candidate("cudnn", 1);
  wrong.outputs = [] { return Outputs{{3, 2, 1}, {0.5F, 0.25F}}; };
  EXPECT_EQ(Choose({broken, Candidate("flash", 2000), wrong}).name, "flash");
}

TEST_F(AttentionChoiceTest, NoneLeftIsAnErrorThatSaysEveryReason) {
  AttentionCandidate bad = Candidate("rows", 1);
  bad.outputs = []() -> Outputs { throw std::runtime_error("heads are too wide"); };
  AttentionCandidate lost = Candidate("flash", 1);
  lost.outputs = []() -> Outputs { throw std::runtime_error("no library"); };
  const auto choice = ChooseAttention(std::vector{bad, lost}, {}, clock_);
  EXPECT_EQ(choice.status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(choice.status().message(),
            "no attention works on this device: rows: heads are too wide; flash: no library");
  EXPECT_FALSE(ChooseAttention({}, {}, clock_).ok());
}

TEST_F(AttentionChoiceTest, ThePlansIsTakenWithoutMeasuring) {
  const AttentionChoice choice =
      Choose({Candidate("rows", 9000), Candidate("flash", 2000)}, {.previous = "rows"});
  EXPECT_EQ(choice.name, "rows");
  EXPECT_EQ(compared_ + runs_, 0);
  EXPECT_TRUE(choice.times.empty());
}

TEST_F(AttentionChoiceTest, WhereThePlansIsNotThereItIsMeasured) {
  EXPECT_EQ(Choose({Candidate("rows", 9000), Candidate("flash", 2000)}, {.previous = "cudnn"}).name,
            "flash");
}

TEST_F(AttentionChoiceTest, ADeterministicRunTakesWhatIs) {
  AttentionCandidate atomics = Candidate("cudnn", 1);
  atomics.deterministic = false;
  const std::vector<AttentionCandidate> all = {Candidate("rows", 9000), atomics};
  EXPECT_EQ(Choose(all).name, "cudnn");
  const AttentionChoice choice = Choose(all, {.deterministic = true, .previous = "cudnn"});
  EXPECT_EQ(choice.name, "rows");
  EXPECT_EQ(choice.left_out,
            std::vector<std::string>{"cudnn: its backward pass is not deterministic"});
}

}  // namespace
}  // namespace mft
