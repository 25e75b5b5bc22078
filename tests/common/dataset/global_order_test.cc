// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/global_order.h"

#include <map>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mft {
namespace {

std::vector<int64_t> Order(uint64_t key, int64_t size) {
  const KeyedPermutation permutation(key, size);
  std::vector<int64_t> order;
  for (int64_t i = 0; i < size; ++i) {
    order.push_back(permutation(i));
  }
  return order;
}

TEST(KeyedPermutation, VisitsEveryIndexOnce) {
  for (const int64_t size : {1, 2, 3, 16, 17, 255, 256, 257, 5000}) {
    std::vector<bool> seen(size, false);
    for (const int64_t i : Order(9, size)) {
      ASSERT_GE(i, 0);
      ASSERT_LT(i, size);
      ASSERT_FALSE(seen[i]) << i << " of " << size;
      seen[i] = true;
    }
  }
}

TEST(KeyedPermutation, IsFixedByItsKey) {
  // A seed means this order for ever: other values here would change every run that is resumed.
  EXPECT_THAT(Order(MixKey({42, 1}), 8), ::testing::ElementsAre(7, 5, 2, 0, 4, 6, 3, 1));
  EXPECT_NE(Order(MixKey({42, 1}), 100), Order(MixKey({42, 2}), 100));
}

TEST(KeyedPermutation, GivesEveryOrderOfAFewSamplesEquallyOften) {
  std::map<std::vector<int64_t>, int> counts;
  constexpr int kKeys = 24000;
  for (int key = 0; key < kKeys; ++key) {
    ++counts[Order(key, 4)];
  }
  ASSERT_EQ(counts.size(), 24u);
  double chi_square = 0;
  for (const auto& [order, count] : counts) {
    chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  }
  EXPECT_LT(chi_square, 49.7) << "23 degrees of freedom, p = 0.001";
}

TEST(KeyedPermutation, SpreadsNeighboursOverTheWholeRange) {
  constexpr int64_t kSize = 1'000'003;
  const KeyedPermutation permutation(5, kSize);
  double distance = 0;
  for (int64_t i = 0; i < 2000; ++i) {
    distance += std::abs(static_cast<double>(permutation(i + 1) - permutation(i)));
  }
  EXPECT_NEAR(distance / 2000 / kSize, 1.0 / 3, 0.02);
}

}  // namespace
}  // namespace mft
