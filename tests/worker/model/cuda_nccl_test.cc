// SPDX-License-Identifier: Apache-2.0
// NCCL with one rank, which is what one GPU allows: the calls, not the exchange.
#include <vector>

#include <gtest/gtest.h>

#include "tests/worker/model/device_kernels.h"
#include "tests/worker/model/moving_weights_testing.h"
#include "worker/comm/device_communicator.h"
#include "worker/kernels/cuda_library.h"
#include "worker/model/device_buffer.h"
#include "worker/model/device_weights.h"

namespace mft {
namespace {

TEST(Nccl, OneRankSumsItsOwnValues) {
  const KernelTable& kernels = testing::DeviceKernels(false);
  const CudaApi* const api = LoadCuda().value();
  DeviceCommOptions options{.meet_ms = 60'000, .exchange_ms = 60'000};
  options.id = api->make_communicator_id();
  const auto communicator = api->communicate(options).value();
  std::vector<float> values(100'000, 1.5F);
  const size_t bytes = values.size() * sizeof(float);
  const DeviceBuffer memory = AllocateOnDevice(*kernels.memory, bytes, "values");
  kernels.memory->upload(memory.get(), values.data(), bytes);
  for (int i = 0; i < 3; ++i) {
    const Status status =
        communicator->AllReduceSum({reinterpret_cast<float*>(memory.get()), values.size()});
    ASSERT_TRUE(status.ok()) << status.message();
  }
  ASSERT_TRUE(communicator->Broadcast({memory.get(), bytes}, 0).ok());
  ASSERT_TRUE(communicator->AllGather({memory.get(), bytes}, {memory.get(), bytes}).ok());
  ASSERT_TRUE(communicator->BeginAllGather({memory.get(), bytes}, {memory.get(), bytes}).ok());
  ASSERT_TRUE(communicator->EndAllGather().ok());
  std::vector<float> after(values.size());
  kernels.memory->download(after.data(), memory.get(), bytes);
  EXPECT_EQ(after, values);
}

// A gather beside kernels that are queued.
TEST(Nccl, GathersBesideTheKernels) {
  const KernelTable& kernels = testing::DeviceKernels(true);
  const ModelParams params = testing::MovingParams(false);
  const DeviceModel model{params, kernels};
  const CudaApi* const api = LoadCuda().value();
  DeviceCommOptions options{.meet_ms = 60'000, .exchange_ms = 60'000};
  options.id = api->make_communicator_id();
  const auto communicator = api->communicate(options).value();
  const auto resident = MakeDeviceWeights(model, FillWithRandom(model));
  const auto sharded = MakeShardedDeviceWeights(model, FillWithRandom(model), *communicator);
  EXPECT_EQ(testing::HashesInEveryOrder(*sharded, kernels),
            testing::HashesInEveryOrder(*resident, kernels));
  EXPECT_EQ(testing::TrainedHash(*sharded, kernels, RecomputePolicy::kNothing),
            testing::TrainedHash(*resident, kernels, RecomputePolicy::kNothing));
}

TEST(Nccl, RefusesAnIdOfAnotherSize) {
  testing::DeviceKernels(false);
  const auto result = LoadCuda().value()->communicate({.id = std::vector<std::byte>(3)});
  EXPECT_EQ(result.status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace mft
