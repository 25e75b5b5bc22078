// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/comm/communicator.h"

namespace mft {
namespace {

TEST(LocalCommunicator, LeavesEverythingAsItIs) {
  const auto comm = MakeLocalCommunicator(0, 1).value();
  EXPECT_EQ(comm->rank(), 0);
  EXPECT_EQ(comm->world_size(), 1);
  std::vector<float> gradient = {1.5F, -2.0F};
  std::array<double, 2> sums = {3.25, 4};
  ASSERT_TRUE(comm->AllReduceSum(gradient).ok());
  ASSERT_TRUE(comm->AllReduceSum(sums).ok());
  ASSERT_TRUE(comm->Broadcast(std::as_writable_bytes(std::span(sums)), 0).ok());
  ASSERT_TRUE(comm->Barrier().ok());
  EXPECT_THAT(gradient, ::testing::ElementsAre(1.5F, -2.0F));
  EXPECT_THAT(sums, ::testing::ElementsAre(3.25, 4));
  EXPECT_EQ(comm->Broadcast({}, 1).code(), Code::kInvalidArgument);
}

TEST(LocalCommunicator, RefusesMoreRanksByName) {
  const auto two = MakeLocalCommunicator(0, 2);
  ASSERT_FALSE(two.ok());
  EXPECT_EQ(two.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(two.status().message(), ::testing::HasSubstr("2 ranks"));
  EXPECT_EQ(MakeLocalCommunicator(1, 1).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(MakeLocalCommunicator(0, 0).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace mft
