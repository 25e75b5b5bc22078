// SPDX-License-Identifier: Apache-2.0
#include "worker/infer/sampler.h"

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace mft {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const std::vector<float> kLogits = {0.0F, 2.0F, 1.0F, 2.0F, -1.0F};

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  EXPECT_EQ(SampleToken(kLogits, {}, 0), 1);
  EXPECT_EQ(SampleToken(std::vector<float>{-kInfinity, NAN, -3.0F}, {}, 0), 2);
  EXPECT_EQ(SampleToken(std::vector<float>{NAN, -kInfinity}, {}, 0), -1);
  EXPECT_EQ(SampleToken(std::vector<float>{NAN}, {.temperature = 1}, 0), -1);
}

TEST(Sampler, DrawsWithTheProbabilitiesOfTheSoftmax) {
  constexpr int kDraws = 20'000;
  constexpr double kTemperature = 0.7;
  std::vector<int> counts(kLogits.size());
  for (int i = 0; i < kDraws; ++i) {
    ++counts[static_cast<size_t>(
        SampleToken(kLogits, {.temperature = kTemperature, .seed = 3}, static_cast<uint64_t>(i)))];
  }
  double total = 0;
  for (const float logit : kLogits) {
    total += std::exp(logit / kTemperature);
  }
  for (size_t i = 0; i < kLogits.size(); ++i) {
    const double p = std::exp(kLogits[i] / kTemperature) / total;
    EXPECT_NEAR(counts[i], kDraws * p, 4 * std::sqrt(kDraws * p * (1 - p)) + 1) << i;
  }
}

TEST(Sampler, TopPKeepsTheSmallestSetThatIsLikelyEnough) {
  std::set<int32_t> seen;
  for (uint64_t i = 0; i < 2000; ++i) {
    seen.insert(SampleToken(kLogits, {.temperature = 1, .top_p = 0.7, .seed = 1}, i));
  }
  EXPECT_EQ(seen, (std::set<int32_t>{1, 3}));  // 0.40 each
  seen.clear();
  for (uint64_t i = 0; i < 200; ++i) {
    seen.insert(SampleToken(kLogits, {.temperature = 1, .top_p = 0, .seed = 1}, i));
  }
  EXPECT_EQ(seen, std::set<int32_t>{1});
}

TEST(Sampler, SameSeedAndPositionGiveTheSameToken) {
  std::set<int32_t> by_seed;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const SamplingOptions options{.temperature = 2, .seed = seed};
    EXPECT_EQ(SampleToken(kLogits, options, 9), SampleToken(kLogits, options, 9));
    by_seed.insert(SampleToken(kLogits, options, 9));
  }
  EXPECT_GT(by_seed.size(), 2U);
}

}  // namespace
}  // namespace mft
