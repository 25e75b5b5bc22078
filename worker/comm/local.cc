// SPDX-License-Identifier: Apache-2.0
#include "common/base/strings.h"
#include "worker/comm/communicator.h"

namespace mft {

namespace {
class LocalCommunicator final : public Communicator {
 public:
  int64_t rank() const override { return 0; }
  int64_t world_size() const override { return 1; }
  Status AllReduceSum(std::span<float> /*values*/) override { return Status::Ok(); }
  Status AllReduceSum(std::span<double> /*values*/) override { return Status::Ok(); }
  Status AllGather(std::span<std::byte> /*bytes*/) override { return Status::Ok(); }
  Status Broadcast(std::span<std::byte> /*bytes*/, int64_t root) override {
    return root == 0 ? Status::Ok()
                     : InvalidArgument(StrCat("broadcast from rank ", root, " of 1 rank"));
  }
  Status Barrier() override { return Status::Ok(); }
  void SetPlace(int64_t /*step*/, std::string_view /*phase*/) override {}
  Communicator& background() override { return *this; }
  Status failure() override { return Status::Ok(); }
};
}  // namespace

Result<std::unique_ptr<Communicator>> MakeLocalCommunicator(int64_t rank, int64_t world_size) {
  if (world_size < 1 || rank < 0 || rank >= world_size) {
    return InvalidArgument(StrCat("rank ", rank, " of ", world_size, " ranks"));
  }
  if (world_size > 1) {
    return InvalidArgument(
        StrCat(world_size, " ranks cannot meet without a communicator between them"));
  }
  return std::unique_ptr<Communicator>(std::make_unique<LocalCommunicator>());
}

}  // namespace mft
