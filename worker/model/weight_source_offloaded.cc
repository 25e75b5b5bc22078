// SPDX-License-Identifier: Apache-2.0
// A block is copied out of the mapped file into one of two buffers, by a thread that reads the next
// one while this one is multiplied by; the file's pages are let go of at once. So two blocks and
// the head are in memory, however large the file.
#include <utility>

#include "common/checkpoint/model_weights.h"
#include "worker/model/block_buffers.h"
#include "worker/model/block_image.h"
#include "worker/model/mapped_tensors.h"
#include "worker/model/status_error.h"
#include "worker/model/weight_source.h"

namespace mft {

namespace {
class OffloadedWeights final : public WeightSource {
 public:
  explicit OffloadedWeights(std::shared_ptr<const ModelWeights> files)
      : files_(std::move(files)),
        head_tensors_(*files_),
        head_(head_tensors_.Head()),
        images_(*files_),
        buffers_(images_, [this](int64_t block, std::span<std::byte> image) {
          images_.Write(block, 0, image.size(), image);
          images_.DropFilePages(block);
          return Status::Ok();
        }) {}

  const ModelParams& params() const override { return files_->params(); }
  const HeadWeights& head() const override { return head_; }
  int64_t resident_bytes() const override { return head_tensors_.bytes() + buffers_.bytes(); }
  BlockLease Acquire(int64_t block, Phase phase) override {
    return BlockLease(ValueOrThrow(buffers_.Get(block, phase)));
  }

 private:
  const std::shared_ptr<const ModelWeights> files_;
  MappedTensors head_tensors_;
  const HeadWeights head_;
  const BlockImages images_;
  BlockBuffers buffers_;  // last: its thread uses the others
};
}  // namespace

int64_t BlockBufferBytes(const ModelWeights& files) {
  return BlockImages(files).largest_bytes();
}

std::unique_ptr<WeightSource> MakeOffloadedWeights(std::shared_ptr<const ModelWeights> files) {
  return std::make_unique<OffloadedWeights>(std::move(files));
}

}  // namespace mft
