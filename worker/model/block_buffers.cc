// SPDX-License-Identifier: Apache-2.0
#include "worker/model/block_buffers.h"

#include <algorithm>
#include <utility>

namespace mft {

BlockBuffers::BlockBuffers(const BlockImages& images, Fill fill)
    : images_(images), fill_(std::move(fill)) {
  for (Slot& slot : slots_) {
    slot.memory = MakeAlignedFloats(images_.largest_bytes() / static_cast<int64_t>(sizeof(float)));
  }
  thread_ = std::thread([this] { Run(); });
}

BlockBuffers::~BlockBuffers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Result<const BlockWeights*> BlockBuffers::Get(int64_t block, Phase phase) {
  std::unique_lock lock(mutex_);
  const auto wait_for = [&](const Slot& slot) {
    changed_.wait(lock, [&slot] { return slot.ready; });
  };
  Slot* slot = Find(block);
  if (slot == nullptr) {  // another was expected
    wait_for(slots_[0]);
    wait_for(slots_[1]);
    slot = slots_.data();
    Want(*slot, block);
  }
  wait_for(*slot);
  if (!slot->status.ok()) {
    return slot->status;
  }
  // Where the passes turn, the other buffer has what comes next already.
  const int64_t next = phase == Phase::kForward ? block + 1 : block - 1;
  Slot& other = slot == slots_.data() ? slots_[1] : slots_[0];
  if (next >= 0 && next < images_.params().n_layers && other.block != next) {
    wait_for(other);
    Want(other, next);
  }
  return &slot->weights;
}

BlockBuffers::Slot* BlockBuffers::Find(int64_t block) {
  const auto slot = std::ranges::find(slots_, block, &Slot::block);
  return slot == slots_.end() ? nullptr : &*slot;
}

void BlockBuffers::Want(Slot& slot, int64_t block) {
  slot.block = block;
  slot.ready = false;
  changed_.notify_all();
}

BlockBuffers::Slot* BlockBuffers::Wanted() {
  const auto slot = std::ranges::find(slots_, false, &Slot::ready);
  return slot == slots_.end() ? nullptr : &*slot;
}

void BlockBuffers::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || Wanted() != nullptr; });
    Slot* const slot = Wanted();
    if (slot == nullptr) {
      return;
    }
    lock.unlock();
    const std::span image(reinterpret_cast<std::byte*>(slot->memory.get()),
                          static_cast<size_t>(images_.bytes(slot->block)));
    slot->status = fill_(slot->block, image);
    slot->weights = images_.WeightsIn(slot->block, image);
    lock.lock();
    slot->ready = true;
    changed_.notify_all();
  }
}

}  // namespace mft
