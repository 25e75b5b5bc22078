// SPDX-License-Identifier: Apache-2.0
#include "worker/train/adamw.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "worker/train/grad_clip.h"

namespace mft {
namespace {

using Floats = std::vector<float>;

struct Arenas {
  Floats weight, m, v;
  explicit Arenas(Floats start) : weight(std::move(start)), m(weight.size()), v(weight.size()) {}
  void Update(const Floats& grad, const AdamWOptions& options) {
    AdamWUpdate({.weight = weight, .grad = grad, .m = m, .v = v}, options);
  }
};

void ExpectNear(const Floats& got, const Floats& want) {
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], 1e-6 * std::abs(want[i]) + 1e-24) << i;
  }
}

TEST(AdamW, EqualsTorchWithChangingRateAndBeta1) {
  // torch.optim.AdamW (PyTorch 1.13), betas[1] 0.95, weight_decay 0.1, lr and betas[0] set each
  // step.
  Arenas state({0.5F, -1.25F, 2.0F, 1e-3F});
  state.Update({.1F, -.2F, 3.F, 1e-9F}, {.lr = .01, .beta1 = .95, .weight_decay = .1, .update = 1});
  state.Update({-.3F, .05F, -2.F, 0.F}, {.lr = .03, .beta1 = .9, .weight_decay = .1, .update = 2});
  ExpectNear(state.weight, {0.5058558583F, -1.2306512594F, 1.9860814810F, -0.00057452911F});
  state.Update({.7F, .7F, 1e-4F, -4.F}, {.lr = .02, .beta1 = .85, .weight_decay = .1, .update = 3});
  ExpectNear(state.weight, {0.4953037202F, -1.2404241562F, 1.9835097790F, 0.01255730726F});
  ExpectNear(state.m, {0.08332499862F, 0.10159999877F, -0.05523499846F, -0.60000002384F});
  ExpectNear(state.v, {0.02922624908F, 0.02642375045F, 0.59612500668F, 0.80000001192F});
}

TEST(AdamW, ScalesTheGradientByTheClippingFactor) {
  Arenas clipped({1.0F, -2.0F});
  Arenas halved({1.0F, -2.0F});
  clipped.Update({0.5F, -4.0F}, {.lr = .1, .beta1 = .9, .grad_scale = 0.5});
  halved.Update({0.25F, -2.0F}, {.lr = .1, .beta1 = .9});
  EXPECT_EQ(clipped.weight, halved.weight);
  EXPECT_EQ(clipped.m, halved.m);
  EXPECT_EQ(clipped.v, halved.v);
}

TEST(AdamW, DecaysWithoutAGradient) {
  Arenas state({2.0F});
  state.Update({0.0F}, {.lr = .1, .beta1 = .9, .weight_decay = .5});
  EXPECT_FLOAT_EQ(state.weight[0], 2.0F * 0.95F);
}

TEST(GradClip, NormEqualsTheSumOverAllElements) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Floats gradient(100'003);
  double squares = 0;
  for (float& value : gradient) {
    value = normal(random);
    squares += static_cast<double>(value) * value;
  }
  EXPECT_NEAR(SumOfSquares(gradient), squares, 1e-9 * squares);
  EXPECT_EQ(SumOfSquares({}), 0.0);
}

TEST(GradClip, NoFiniteGradientOverflowsAndNothingElseIsFinite) {
  EXPECT_TRUE(std::isfinite(SumOfSquares(Floats(1000, std::numeric_limits<float>::max()))));
  EXPECT_FALSE(std::isfinite(SumOfSquares(Floats{1, std::numeric_limits<float>::infinity()})));
  EXPECT_FALSE(std::isfinite(SumOfSquares(Floats{std::numeric_limits<float>::quiet_NaN(), 1})));
}

TEST(GradClip, FactorIsTorchs) {
  EXPECT_DOUBLE_EQ(ClipFactor(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(ClipFactor(4.0, 1.0), 1.0 / 4.000001);
  EXPECT_DOUBLE_EQ(ClipFactor(0.0, 1.0), 1.0);
  EXPECT_TRUE(std::isnan(ClipFactor(std::nan(""), 1.0)));
}

}  // namespace
}  // namespace mft
