// SPDX-License-Identifier: Apache-2.0
// Expected values: NumPy's RandomState([seed, rank]).
#include "common/dataset/numpy_random.h"

#include <numeric>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mft {
namespace {

using ::testing::ElementsAre;

TEST(NumpyRandom, GivesTheWordsOfNumPy) {
  NumpyRandom zero(0, 0);
  EXPECT_EQ(zero.NextWord(), 647325673u);
  EXPECT_EQ(zero.NextWord(), 1560931061u);
  EXPECT_EQ(zero.NextWord(), 839849605u);
  NumpyRandom one(0, 1);
  EXPECT_EQ(one.NextWord(), 485306839u);
  EXPECT_EQ(one.NextWord(), 1508871100u);
}

TEST(NumpyRandom, GivesTheDoublesOfNumPy) {
  NumpyRandom random(42, 3);
  EXPECT_EQ(random.Uniform(), .7791088418906693);
  EXPECT_EQ(random.Uniform(), .6697469023526965);
  EXPECT_EQ(random.Uniform(), .3849108502836557);
  EXPECT_EQ(random.Uniform(), .19097457179643051);
}

TEST(NumpyRandom, ShufflesAsNumPyTwiceInARow) {
  NumpyRandom random(0, 0);
  std::vector<int64_t> values(10);
  std::iota(values.begin(), values.end(), 0);
  random.Shuffle(values);
  EXPECT_THAT(values, ElementsAre(3, 7, 6, 4, 1, 0, 2, 8, 5, 9));
  random.Shuffle(values);
  EXPECT_THAT(values, ElementsAre(7, 6, 9, 4, 5, 3, 0, 2, 8, 1));
}

TEST(NumpyRandom, ChoosesAsNumPy) {
  const std::vector<double> cumulative = {.2, .2 + .3, 1.0};
  NumpyRandom random(0, 1);
  std::string drawn;
  for (int i = 0; i < 20; ++i) {
    drawn += std::to_string(random.Choice(cumulative));
  }
  EXPECT_EQ(drawn, "01022121022211202022");
}

}  // namespace
}  // namespace mft
