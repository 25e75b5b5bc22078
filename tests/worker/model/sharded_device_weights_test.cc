// SPDX-License-Identifier: Apache-2.0
// Frozen weights split among the devices of ranks: processes with an emulated device each, which
// exchange by way of their hosts.
#include <cstddef>
#include <cstdio>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/support/emulated_device.h"
#include "tests/worker/comm/comm_testing.h"
#include "tests/worker/model/moving_weights_testing.h"
#include "worker/comm/device_communicator.h"
#include "worker/kernels/cpu_runtime.h"
#include "worker/model/device_weights.h"

namespace mft {
namespace {

using testing::DeviceFormat;
using testing::HashesInEveryOrder;
using testing::MovingParams;
using testing::TrainedHash;

// What is gathered beside the device's work has no value until it is waited for.
class EmulatedCommunicator final : public DeviceCommunicator {
 public:
  EmulatedCommunicator(Communicator& comm, const DeviceMemory& memory)
      : comm_(comm), memory_(memory) {}
  int64_t rank() const override { return comm_.rank(); }
  int64_t world_size() const override { return comm_.world_size(); }
  Status AllReduceSum(std::span<float> values) override {
    std::vector<float> host(values.size());
    memory_.download(host.data(), values.data(), values.size_bytes());
    MFT_RETURN_IF_ERROR(comm_.AllReduceSum(std::span(host)));
    memory_.upload(values.data(), host.data(), values.size_bytes());
    return Status::Ok();
  }
  Status Broadcast(std::span<std::byte> bytes, int64_t root) override {
    std::vector<std::byte> host(bytes.size());
    memory_.download(host.data(), bytes.data(), bytes.size());
    MFT_RETURN_IF_ERROR(comm_.Broadcast(std::span(host), root));
    memory_.upload(bytes.data(), host.data(), bytes.size());
    return Status::Ok();
  }
  Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    MFT_RETURN_IF_ERROR(BeginAllGather(mine, all));
    return EndAllGather();
  }
  Status BeginAllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    if (all.size() != mine.size() * static_cast<size_t>(world_size()) || !gathered_.empty()) {
      return Internal("a gather of other sizes, or two at once");
    }
    gathered_.resize(all.size());
    target_ = all.data();
    memory_.download(
        gathered_.data() + static_cast<size_t>(rank()) * mine.size(), mine.data(), mine.size());
    const std::vector<std::byte> no_value(all.size(), std::byte{0xFF});
    memory_.upload(all.data(), no_value.data(), no_value.size());
    return Status::Ok();
  }
  Status EndAllGather() override {
    const std::vector<std::byte> mine = std::exchange(gathered_, {});
    std::vector<std::byte> all = mine;
    MFT_RETURN_IF_ERROR(comm_.AllGather(std::span(all)));
    memory_.upload(target_, all.data(), all.size());
    return Status::Ok();
  }

 private:
  Communicator& comm_;
  const DeviceMemory& memory_;
  std::vector<std::byte> gathered_;
  void* target_ = nullptr;
};

// What a rank finds wrong, as its exit code.
int CompareOnRank(Communicator& comm, const DeviceFormat& format) {
  SetCpuThreads(1);  // a forked process has no other
  const KernelTable& kernels = testing::EmulatedKernels(format.bf16);
  const ModelParams params = MovingParams(format.moe);
  const DeviceModel model{params, kernels, format.quantise};
  EmulatedCommunicator device(comm, *kernels.memory);
  const auto resident = MakeDeviceWeights(model, FillWithRandom(model));
  const auto sharded = MakeShardedDeviceWeights(model, FillWithRandom(model), device);
  const DeviceWeightBytes bytes = DeviceWeightBytesOf(params, kernels.type, format.quantise);
  const int64_t part = (bytes.block + comm.world_size() * 256 - 1) / comm.world_size() / 256 * 256;
  if (sharded->resident_bytes() != bytes.head + (2 * comm.world_size() + params.n_layers) * part) {
    return 1;
  }
  if (HashesInEveryOrder(*sharded, kernels) != HashesInEveryOrder(*resident, kernels)) {
    return 2;
  }
  const RecomputePolicy policy = RecomputePolicy::kMlp;
  if (comm.rank() + 1 == comm.world_size() && comm.world_size() > 1) {
    for (int pass = 0; pass < 4; ++pass) {  // nothing to compute
      PassOverBlocks(*sharded, true);
    }
  } else if (TrainedHash(*sharded, kernels, policy) != TrainedHash(*resident, kernels, policy)) {
    return 3;
  }
  return comm.Barrier().ok() ? 0 : 4;  // all made the same calls
}

class ShardedDeviceWeights : public ::testing::TestWithParam<std::tuple<DeviceFormat, int64_t>> {};
INSTANTIATE_TEST_SUITE_P(
    All,
    ShardedDeviceWeights,
    ::testing::Combine(::testing::Values(DeviceFormat{"Fp32", false, false, false},
                                         DeviceFormat{"Fp8", true, true, false},
                                         DeviceFormat{"Experts", true, false, true}),
                       ::testing::Values(1, 2, 3)),
    [](const auto& param) {
      return StrCat(std::get<0>(param.param).name, std::get<1>(param.param));
    });

TEST_P(ShardedDeviceWeights, AreAndTrainToTheBitsOfResidentOnes) {
  const auto [format, world_size] = GetParam();
  const testing::Meeting meeting;
  std::vector<pid_t> pids;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    pids.push_back(testing::StartRankProcess(
        meeting.Options(rank, world_size),
        [&, format = format](Communicator& comm) { return CompareOnRank(comm, format); }));
  }
  for (const pid_t pid : pids) {
    EXPECT_EQ(testing::ExitCodeOf(pid), 0);
  }
}

}  // namespace
}  // namespace mft
