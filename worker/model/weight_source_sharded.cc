// SPDX-License-Identifier: Apache-2.0
// Every rank reads its part of each block from the mapped file, an even share of the bytes whatever
// tensors they are of; the ranks' parts are gathered into one of two buffers by a thread that is a
// block ahead, on the communicator's background channel.
#include <utility>

#include "common/checkpoint/model_weights.h"
#include "worker/comm/communicator.h"
#include "worker/model/block_buffers.h"
#include "worker/model/block_image.h"
#include "worker/model/mapped_tensors.h"
#include "worker/model/status_error.h"
#include "worker/model/weight_source.h"

namespace mft {

namespace {
class ShardedWeights final : public WeightSource {
 public:
  ShardedWeights(std::shared_ptr<const ModelWeights> files, Communicator& channel)
      : files_(std::move(files)),
        head_tensors_(*files_),
        head_(head_tensors_.Head()),
        channel_(channel),
        images_(*files_),
        buffers_(images_, [this](int64_t block, std::span<std::byte> image) {
          const Part mine = PartOf(image.size(), channel_.rank(), channel_.world_size());
          images_.Write(block, mine.begin, mine.begin + mine.size, image);
          return channel_.AllGather(image);
        }) {}

  const ModelParams& params() const override { return files_->params(); }
  const HeadWeights& head() const override { return head_; }
  int64_t resident_bytes() const override {
    return head_tensors_.bytes() + buffers_.bytes() + images_.total_bytes() / channel_.world_size();
  }
  BlockLease Acquire(int64_t block, Phase phase) override {
    const auto weights = buffers_.Get(block, phase);
    if (!weights.ok()) {
      ThrowIfError(channel_.failure());  // says that this thread knows of it
      ThrowIfError(weights.status());
    }
    return BlockLease(*weights);
  }

 private:
  const std::shared_ptr<const ModelWeights> files_;
  MappedTensors head_tensors_;
  const HeadWeights head_;
  Communicator& channel_;
  const BlockImages images_;
  BlockBuffers buffers_;  // last: its thread uses the others
};
}  // namespace

std::unique_ptr<WeightSource> MakeShardedWeights(std::shared_ptr<const ModelWeights> files,
                                                 Communicator& comm) {
  return std::make_unique<ShardedWeights>(std::move(files), comm.background());
}

void PassOverBlocks(WeightSource& weights, bool backward) {
  const int64_t layers = weights.params().n_layers;
  for (int64_t block = 0; block < layers; ++block) {
    weights.Acquire(block, Phase::kForward);
  }
  for (int64_t block = layers - 1; backward && block >= 0; --block) {
    weights.Acquire(block, Phase::kBackward);
  }
}

}  // namespace mft
