// SPDX-License-Identifier: Apache-2.0
// The bodies in double: forward against the plain formula, backward against finite differences.
#include "worker/kernels/elementwise.h"

#include <gtest/gtest.h>

#include "tests/worker/kernels/testing.h"
#include "worker/kernels/softmax_row.h"

namespace mft {
namespace {

using testing::DotProduct;
using testing::NormalDoubles;
using testing::NumericGradient;
using testing::RelativeError;
using Vector = std::vector<double>;

constexpr int64_t kWidth = 24;
constexpr double kEps = 1e-5;

TEST(Exp, IsWithinTwoUlpsInFloat) {
  double worst = 0;
  for (float x = -86.5F; x < 87.5F; x += 0.0137F) {
    const double expected = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(elementwise::Exp(x) - expected) / expected);
  }
  EXPECT_LT(worst, 2.0 / (1 << 23));
  EXPECT_EQ(elementwise::Exp(0.0F), 1.0F);
}

TEST(Exp, OfExtremesIsFiniteAndTiny) {
  EXPECT_LT(elementwise::Exp(-1e30F), 2e-38F);
  EXPECT_GE(elementwise::Exp(-INFINITY), 0.0F);
  EXPECT_TRUE(std::isfinite(elementwise::Exp(1e30F)));
  EXPECT_TRUE(std::isnan(elementwise::Exp(NAN)));
}

Vector RmsNorm(const Vector& x, const Vector& weight) {
  Vector y(x.size());
  elementwise::RmsNormRow(y.data(), x.data(), weight.data(), static_cast<int64_t>(x.size()), kEps);
  return y;
}

TEST(RmsNorm, IsXOverItsRootMeanSquareTimesWeight) {
  const Vector x = NormalDoubles(kWidth, 1);
  const Vector weight = NormalDoubles(kWidth, 2);
  const double rms = std::sqrt(DotProduct(x, x) / kWidth + kEps);
  Vector expected(kWidth);
  for (size_t i = 0; i < kWidth; ++i) {
    expected[i] = x[i] / rms * weight[i];
  }
  EXPECT_LT(RelativeError(RmsNorm(x, weight), expected), 1e-14);
}

TEST(RmsNorm, BackwardAddsTheGradient) {
  const Vector x = NormalDoubles(kWidth, 1);
  const Vector weight = NormalDoubles(kWidth, 2);
  const Vector dy = NormalDoubles(kWidth, 3);
  Vector expected =
      NumericGradient([&](const Vector& at) { return DotProduct(RmsNorm(at, weight), dy); }, x);
  Vector dx = NormalDoubles(kWidth, 4);
  for (size_t i = 0; i < kWidth; ++i) {
    expected[i] += dx[i];
  }
  elementwise::RmsNormBackwardRow(dx.data(), dy.data(), x.data(), weight.data(), kWidth, kEps);
  EXPECT_LT(RelativeError(dx, expected), 1e-8);
}

TEST(Rotary, TurnsPairsAndBackAgain) {
  constexpr int64_t kHeads = 3;
  constexpr int64_t kHeadDim = kWidth / kHeads;
  const Vector x = NormalDoubles(kWidth, 5);
  Vector table(kHeadDim);
  for (size_t j = 0; j < kHeadDim; j += 2) {
    table[j] = std::cos(0.3 * static_cast<double>(j + 1));
    table[j + 1] = std::sin(0.3 * static_cast<double>(j + 1));
  }
  Vector y = x;
  elementwise::RotaryRow(y.data(), table.data(), kHeads, kHeadDim, 1.0);
  for (size_t i = 0; i < kWidth; i += 2) {
    const double angle = 0.3 * static_cast<double>(i % kHeadDim + 1);
    EXPECT_NEAR(y[i], x[i] * std::cos(angle) - x[i + 1] * std::sin(angle), 1e-14);
    EXPECT_NEAR(y[i + 1], x[i] * std::sin(angle) + x[i + 1] * std::cos(angle), 1e-14);
  }
  elementwise::RotaryRow(y.data(), table.data(), kHeads, kHeadDim, -1.0);
  EXPECT_LT(RelativeError(y, x), 1e-14);
}

TEST(Swiglu, BackwardGivesBothGradientsAndTheValue) {
  const Vector gate = NormalDoubles(kWidth, 6);
  const Vector up = NormalDoubles(kWidth, 7);
  const Vector d_act = NormalDoubles(kWidth, 8);
  const auto value = [](const Vector& g, const Vector& u) {
    Vector act(kWidth);
    elementwise::SwigluRow(act.data(), g.data(), u.data(), kWidth);
    return act;
  };
  const Vector act = value(gate, up);
  for (size_t i = 0; i < kWidth; ++i) {
    EXPECT_NEAR(act[i], gate[i] / (1 + std::exp(-gate[i])) * up[i], 1e-14);
  }
  Vector d = d_act;
  Vector g = gate;
  Vector u = up;
  elementwise::SwigluBackwardRow(d.data(), g.data(), u.data(), kWidth);
  EXPECT_LT(RelativeError(d, act), 1e-14);
  EXPECT_LT(
      RelativeError(g,
                    NumericGradient(
                        [&](const Vector& at) { return DotProduct(value(at, up), d_act); }, gate)),
      1e-8);
  EXPECT_LT(
      RelativeError(u,
                    NumericGradient(
                        [&](const Vector& at) { return DotProduct(value(gate, at), d_act); }, up)),
      1e-8);
}

TEST(AttentionRow, BackwardIsThatOfTheSoftmax) {
  constexpr double kScale = 0.25;
  const Vector scores = NormalDoubles(kWidth, 9);
  const Vector d_p = NormalDoubles(kWidth, 10);
  const auto softmax = [](Vector s) {
    const double sum = elementwise::ExpRow(s.data(), kWidth, kScale, 0.0);
    elementwise::ScaleRow(s.data(), kWidth, 1 / sum);
    return s;
  };
  const Vector p = softmax(scores);
  Vector e = scores;
  const double lse = std::log(elementwise::ExpRow(e.data(), kWidth, kScale, 0.0));
  Vector s = scores;
  Vector d = d_p;
  elementwise::AttentionBackwardRow(s.data(), d.data(), kWidth, kScale, lse, DotProduct(p, d_p));
  EXPECT_LT(RelativeError(s, p), 1e-13);
  EXPECT_LT(
      RelativeError(
          d,
          NumericGradient([&](const Vector& at) { return DotProduct(softmax(at), d_p); }, scores)),
      1e-8);
}

// A row folded in blocks of columns, and the gradient that is put together from them.
struct Folded {
  Folded(const Vector& logits, int64_t target, size_t block, double weight = 1)
      : gradient(logits.size()) {
    SoftmaxRow<double> row;
    for (size_t first = 0; first < logits.size(); first += block) {
      const size_t count = std::min(block, logits.size() - first);
      std::copy_n(logits.begin() + static_cast<int64_t>(first),
                  count,
                  gradient.begin() + static_cast<int64_t>(first));
      const double factor = elementwise::FoldSoftmaxRow(row,
                                                        gradient.data() + first,
                                                        static_cast<int64_t>(count),
                                                        target - static_cast<int64_t>(first),
                                                        first == 0);
      elementwise::ScaleRow(gradient.data(), static_cast<int64_t>(first), factor);
    }
    loss = weight * elementwise::CrossEntropyOf(row);
    EXPECT_EQ(gradient[static_cast<size_t>(target)], 0);
    elementwise::ScaleRow(gradient.data(), static_cast<int64_t>(gradient.size()), weight / row.sum);
    gradient[static_cast<size_t>(target)] = weight * elementwise::TargetGradientOf(row);
  }
  double loss = 0;
  Vector gradient;
};

TEST(CrossEntropy, IsLogSumExpMinusTheTargetInBlocksOfAnySize) {
  const Vector logits = NormalDoubles(2500, 11);  // more than one of its inner blocks
  double sum = 0;
  for (const double logit : logits) {
    sum += std::exp(logit);
  }
  for (const size_t block : {1, 7, 1000, 2100, 2101, 2500}) {
    EXPECT_NEAR(Folded(logits, 2100, block).loss, std::log(sum) - logits[2100], 1e-12) << block;
  }
}

TEST(CrossEntropy, LeavesThePartsOfTheGradient) {
  const Vector logits = NormalDoubles(kWidth, 12);
  for (const size_t block : {3, 64, 1000}) {
    EXPECT_LT(RelativeError(
                  Folded(logits, 5, block, 0.75).gradient,
                  NumericGradient([&](const Vector& at) { return Folded(at, 5, block, 0.75).loss; },
                                  logits)),
              1e-8)
        << block;
  }
}

TEST(CrossEntropy, OfHugeLogitsDoesNotOverflow) {
  for (const size_t block : {1, 3}) {
    EXPECT_NEAR(Folded({1e4, 1e4 - 1, -1e4}, 0, block).loss, std::log1p(std::exp(-1.0)), 1e-12);
    EXPECT_NEAR(Folded({-1e4, 1e4}, 0, block).loss, 2e4, 1e-9);
    EXPECT_NEAR(Folded({-1e4, 1e4}, 0, block).gradient[0], -1, 1e-12);
  }
}

}  // namespace
}  // namespace mft
