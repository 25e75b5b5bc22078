// SPDX-License-Identifier: Apache-2.0
// Weights that move to a device while it works: the bits of those that stay there.
#include "worker/model/device_weights.h"

#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/worker/model/device_kernels.h"
#include "tests/worker/model/moving_weights_testing.h"
#include "worker/model/status_error.h"

namespace mft {
namespace {

using testing::DeviceFormat;
using testing::DeviceKernels;
using testing::Hash;
using testing::HashesInEveryOrder;
using testing::MovingParams;
using testing::TrainedHash;

class OffloadedDeviceWeights : public ::testing::TestWithParam<DeviceFormat> {};
INSTANTIATE_TEST_SUITE_P(All,
                         OffloadedDeviceWeights,
                         ::testing::Values(DeviceFormat{"Fp32", false, false, false},
                                           DeviceFormat{"Bf16", true, false, false},
                                           DeviceFormat{"Fp8", true, true, false},
                                           DeviceFormat{"Experts", true, false, true}),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(OffloadedDeviceWeights, AreThoseOfTheResidentSourceInEveryOrder) {
  const KernelTable& kernels = DeviceKernels(GetParam().bf16);
  const ModelParams params = MovingParams(GetParam().moe);
  if (GetParam().quantise && !CanQuantise(params, kernels).ok()) {
    GTEST_SKIP() << CanQuantise(params, kernels).message();
  }
  const DeviceModel model{params, kernels, GetParam().quantise};
  const auto resident = MakeDeviceWeights(model, FillWithRandom(model));
  const auto offloaded = MakeOffloadedDeviceWeights(model, FillWithRandom(model));
  EXPECT_EQ(HashesInEveryOrder(*offloaded, kernels), HashesInEveryOrder(*resident, kernels));
  const DeviceWeightBytes bytes = DeviceWeightBytesOf(params, kernels.type, GetParam().quantise);
  EXPECT_EQ(resident->resident_bytes(), bytes.head + bytes.blocks);
  EXPECT_EQ(offloaded->resident_bytes(), bytes.head + 2 * bytes.block);
}

// With a microbatch in two chunks, every policy: kernels that are queued read a block while the
// next one is on its way.
TEST_P(OffloadedDeviceWeights, TrainToTheBitsOfResidentOnes) {
  const KernelTable& kernels = DeviceKernels(GetParam().bf16);
  const ModelParams params = MovingParams(GetParam().moe);
  if (GetParam().quantise && !CanQuantise(params, kernels).ok()) {
    GTEST_SKIP() << CanQuantise(params, kernels).message();
  }
  const DeviceModel model{params, kernels, GetParam().quantise};
  for (const RecomputePolicy policy : {RecomputePolicy::kNothing, RecomputePolicy::kBlock}) {
    const auto resident = MakeDeviceWeights(model, FillWithRandom(model));
    const uint64_t expected = TrainedHash(*resident, kernels, policy);
    const auto offloaded = MakeOffloadedDeviceWeights(model, FillWithRandom(model));
    EXPECT_EQ(TrainedHash(*offloaded, kernels, policy), expected);
  }
}

TEST(OffloadedDeviceWeightsMemory, ThatTheHostHasNotIsAnError) {
  KernelTable kernels = DeviceKernels(false);
  DeviceMemory memory = *kernels.memory;
  memory.allocate_pinned = [](size_t /*bytes*/) -> void* { return nullptr; };
  kernels.memory = &memory;
  const ModelParams params = MovingParams(false);
  const DeviceModel model{params, kernels};
  try {
    MakeOffloadedDeviceWeights(model, FillWithRandom(model));
    FAIL() << "no error";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().reason(), "OUT_OF_MEMORY");
    EXPECT_TRUE(
        error.status().message().starts_with("the host has no memory left to pin for block 0 of 5"))
        << error.status().message();
  }
}

}  // namespace
}  // namespace mft
