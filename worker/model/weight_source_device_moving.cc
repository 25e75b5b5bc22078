// SPDX-License-Identifier: Apache-2.0
// The head and two blocks in a device's memory: one is worked with while the other is filled with
// the next, from the host's pinned memory or from what every rank has of it.
#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "worker/comm/device_communicator.h"
#include "worker/model/device_layout.h"
#include "worker/model/device_weights.h"
#include "worker/model/status_error.h"

namespace mft {

namespace {
constexpr size_t kAlignment = 256;

class MovingDeviceWeights : public WeightSource {
 public:
  // `slot_multiple`: of bytes.
  MovingDeviceWeights(const DeviceModel& model, const DeviceFill& fill, size_t slot_multiple)
      : params_(model.params),
        is_quantised_(model.quantise),
        kernels_(model.kernels),
        fill_(fill),
        head_layout_(TensorsOfHead(params_), {kernels_.type, model.quantise}) {
    for (int64_t layer = 0; layer < params_.n_layers; ++layer) {
      layouts_.emplace_back(TensorsOfBlock(params_, layer),
                            DeviceTypes{kernels_.type, model.quantise});
    }
    const auto bytes = static_cast<size_t>(layouts_.front().bytes());
    slot_bytes_ = (bytes + slot_multiple - 1) / slot_multiple * slot_multiple;
    head_memory_ = AllocateOnDevice(
        *kernels_.memory, static_cast<size_t>(head_layout_.bytes()), "the embeddings and the head");
    head_layout_.Fill(head_memory_.get(), kernels_, fill_, wide_);
    head_ = head_layout_.Head(head_memory_.get(), params_);
    for (Slot& slot : slots_) {
      slot.memory = AllocateOnDevice(*kernels_.memory, slot_bytes_, "two blocks of the model");
    }
  }

  const ModelParams& params() const override { return params_; }
  const HeadWeights& head() const override { return head_; }
  bool is_quantised() const override { return is_quantised_; }
  int64_t resident_bytes() const override {
    return head_layout_.bytes() + static_cast<int64_t>(slots_.size() * slot_bytes_);
  }

  BlockLease Acquire(int64_t block, Phase phase) override {
    Finish();
    auto slot = std::ranges::find(slots_, block, &Slot::block);
    if (slot == slots_.end()) {  // another was expected
      slot = slots_.begin();
      Start(*slot, block);
      Finish();
    }
    // Where the passes turn, the other slot has what comes next already. What it holds now was
    // worked with by kernels that are queued.
    const int64_t next = phase == Phase::kForward ? block + 1 : block - 1;
    Slot& other = slot == slots_.begin() ? slots_[1] : slots_[0];
    if (next >= 0 && next < params_.n_layers && other.block != next) {
      Start(other, next);
    }
    return BlockLease(&slot->weights);
  }

 protected:
  // Fills `to` beside the kernels, after those that are queued.
  virtual void BeginMove(int64_t block, std::byte* to) = 0;
  // What is queued from here on reads what was begun.
  virtual void EndMove() = 0;

  const KernelTable& kernels() const { return kernels_; }
  size_t slot_bytes() const { return slot_bytes_; }
  std::byte* slot(size_t index) { return slots_[index].memory.get(); }
  // While the source is made.
  void FillSlot(int64_t block, size_t index) {
    layouts_[static_cast<size_t>(block)].Fill(slot(index), kernels_, fill_, wide_);
  }
  void EndFilling() {
    wide_ = nullptr;
    fill_ = nullptr;
  }

 private:
  struct Slot {
    DeviceBuffer memory;
    int64_t block = -1;
    BlockWeights weights;
  };

  void Start(Slot& slot, int64_t block) {
    BeginMove(block, slot.memory.get());
    moving_ = true;
    slot.block = block;
    slot.weights = layouts_[static_cast<size_t>(block)].Block(slot.memory.get(), params_, block);
  }
  void Finish() {
    if (std::exchange(moving_, false)) {
      EndMove();
    }
  }

  const ModelParams params_;
  const bool is_quantised_;
  const KernelTable& kernels_;
  DeviceFill fill_;    // while weights are being filled
  DeviceBuffer wide_;  // as long
  const DeviceLayout head_layout_;
  std::vector<DeviceLayout> layouts_;
  size_t slot_bytes_ = 0;
  DeviceBuffer head_memory_;
  HeadWeights head_;
  std::array<Slot, 2> slots_;
  bool moving_ = false;
};

struct PinnedRelease {
  const DeviceMemory* memory = nullptr;
  void operator()(std::byte* data) const { memory->release_pinned(data); }
};
using PinnedBuffer = std::unique_ptr<std::byte[], PinnedRelease>;

class OffloadedDeviceWeights final : public MovingDeviceWeights {
 public:
  OffloadedDeviceWeights(const DeviceModel& model, const DeviceFill& fill)
      : MovingDeviceWeights(model, fill, kAlignment), memory_(*model.kernels.memory) {
    for (int64_t block = 0; block < params().n_layers; ++block) {
      FillSlot(block, 0);
      blocks_.push_back(Allocate(block));
      memory_.download(blocks_.back().get(), slot(0), slot_bytes());
    }
    EndFilling();
  }
  // A copy may be reading the pinned memory.
  ~OffloadedDeviceWeights() override {
    memory_.join_copies();
    memory_.synchronize();
  }
  OffloadedDeviceWeights(const OffloadedDeviceWeights&) = delete;
  OffloadedDeviceWeights& operator=(const OffloadedDeviceWeights&) = delete;

 private:
  PinnedBuffer Allocate(int64_t block) {
    void* const data = memory_.allocate_pinned(slot_bytes());
    if (data == nullptr) {
      throw StatusError(
          Status(Code::kResourceExhausted,
                 "OUT_OF_MEMORY",
                 StrCat("the host has no memory left to pin for block ",
                        block,
                        " of ",
                        params().n_layers,
                        ", each of ",
                        FormatBytes(static_cast<int64_t>(slot_bytes())),
                        ": weights that do not fit into the GPU's memory are kept there")));
    }
    return {static_cast<std::byte*>(data), PinnedRelease{&memory_}};
  }
  void BeginMove(int64_t block, std::byte* to) override {
    memory_.begin_copy(to, blocks_[static_cast<size_t>(block)].get(), slot_bytes());
  }
  void EndMove() override { memory_.join_copies(); }

  const DeviceMemory& memory_;
  std::vector<PinnedBuffer> blocks_;
};

class ShardedDeviceWeights final : public MovingDeviceWeights {
 public:
  ShardedDeviceWeights(const DeviceModel& model, const DeviceFill& fill, DeviceCommunicator& comm)
      : MovingDeviceWeights(model, fill, kAlignment * static_cast<size_t>(comm.world_size())),
        comm_(comm),
        part_bytes_(slot_bytes() / static_cast<size_t>(comm.world_size())),
        parts_(AllocateOnDevice(*model.kernels.memory,
                                static_cast<size_t>(params().n_layers) * part_bytes_,
                                "this rank's part of the model's blocks")) {
    for (int64_t first = 0; first < params().n_layers; first += comm_.world_size()) {
      FillBlocks(first);
    }
    EndFilling();
  }
  int64_t resident_bytes() const override {
    return MovingDeviceWeights::resident_bytes() +
           params().n_layers * static_cast<int64_t>(part_bytes_);
  }

 private:
  // Each rank fills one of the blocks from `first` on, for all.
  void FillBlocks(int64_t first) {
    const int64_t end = std::min(first + comm_.world_size(), params().n_layers);
    if (first + comm_.rank() < end) {
      FillSlot(first + comm_.rank(), 0);
    }
    for (int64_t block = first; block < end; ++block) {
      const int64_t root = block - first;
      std::byte* const whole = slot(root == comm_.rank() ? 0 : 1);
      ThrowIfError(comm_.Broadcast(std::span(whole, slot_bytes()), root));
      kernels().memory->copy(
          Part(block), whole + static_cast<size_t>(comm_.rank()) * part_bytes_, part_bytes_);
    }
  }
  std::byte* Part(int64_t block) { return parts_.get() + static_cast<size_t>(block) * part_bytes_; }
  void BeginMove(int64_t block, std::byte* to) override {
    ThrowIfError(
        comm_.BeginAllGather(std::span(Part(block), part_bytes_), std::span(to, slot_bytes())));
  }
  void EndMove() override { ThrowIfError(comm_.EndAllGather()); }

  DeviceCommunicator& comm_;
  const size_t part_bytes_;
  const DeviceBuffer parts_;
};
}  // namespace

std::unique_ptr<WeightSource> MakeOffloadedDeviceWeights(const DeviceModel& model,
                                                         const DeviceFill& fill) {
  return std::make_unique<OffloadedDeviceWeights>(model, fill);
}

std::unique_ptr<WeightSource> MakeShardedDeviceWeights(const DeviceModel& model,
                                                       const DeviceFill& fill,
                                                       DeviceCommunicator& comm) {
  return std::make_unique<ShardedDeviceWeights>(model, fill, comm);
}

}  // namespace mft
