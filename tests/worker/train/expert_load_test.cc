// SPDX-License-Identifier: Apache-2.0
#include "worker/train/expert_load.h"

#include <gtest/gtest.h>

namespace mft {
namespace {

TEST(ExpertLoad, SharesSumToOneAndTheWorstLayerTellsTheImbalance) {
  // Two layers of four experts, 16 visits each.
  const ExpertLoad load = LoadOfExperts(std::vector<int64_t>{4, 4, 4, 4, 10, 6, 0, 0}, 4);
  EXPECT_EQ(load.share, (std::vector<double>{14 / 32.0, 10 / 32.0, 4 / 32.0, 4 / 32.0}));
  EXPECT_DOUBLE_EQ(load.imbalance, 10 / 4.0);
}

TEST(ExpertLoad, IsOneWhereEveryExpertGetsTheSame) {
  EXPECT_DOUBLE_EQ(LoadOfExperts(std::vector<int64_t>{5, 5, 5}, 3).imbalance, 1);
}

TEST(ExpertLoad, IsEmptyWithoutVisits) {
  EXPECT_TRUE(LoadOfExperts({}, 0).share.empty());
  EXPECT_TRUE(LoadOfExperts(std::vector<int64_t>{0, 0}, 2).share.empty());
}

}  // namespace
}  // namespace mft
