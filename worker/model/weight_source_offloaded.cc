// SPDX-License-Identifier: Apache-2.0
// A block is copied out of the mapped file into one of two buffers, by a thread that reads the next
// one while this one is multiplied by; the file's pages are let go of at once. So two blocks and
// the head are in memory, however large the file.
#include <algorithm>
#include <array>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/model_weights.h"
#include "worker/model/aligned_floats.h"
#include "worker/model/block_names.h"
#include "worker/model/mapped_tensors.h"
#include "worker/model/tensor_values.h"
#include "worker/model/weight_source.h"

namespace mft {

namespace {
constexpr int64_t kLine = 16;  // floats of a cache line: where a tensor begins

// fp32 floats that hold a tensor as kernels read it.
int64_t FloatsOf(const TensorEntry& tensor) {
  const auto elements = static_cast<int64_t>(tensor.data.size() / DTypeSize(tensor.dtype));
  const bool narrow = tensor.dtype == DType::kBF16 && tensor.shape.size() == 2;
  const int64_t floats = narrow ? (elements + 1) / 2 : elements;
  return (floats + kLine - 1) / kLine * kLine;
}

class OffloadedWeights final : public WeightSource {
 public:
  explicit OffloadedWeights(std::shared_ptr<const ModelWeights> files)
      : files_(std::move(files)),
        head_tensors_(*files_),
        head_(head_tensors_.Head()),
        slot_floats_(LargestBlockFloats(*files_)) {
    for (Slot& slot : slots_) {
      slot.memory = MakeAlignedFloats(slot_floats_);
    }
    reader_ = std::thread([this] { Read(); });
  }
  ~OffloadedWeights() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    reader_.join();
  }

  const ModelParams& params() const override { return files_->params(); }
  const HeadWeights& head() const override { return head_; }
  int64_t resident_bytes() const override {
    return head_tensors_.bytes() + 2 * slot_floats_ * static_cast<int64_t>(sizeof(float));
  }

  BlockLease Acquire(int64_t block, Phase phase) override {
    std::unique_lock lock(mutex_);
    Slot* slot = Find(block);
    if (slot == nullptr) {  // another was expected
      wake_.wait(lock, [this] { return slots_[0].ready && slots_[1].ready; });
      slot = slots_.data();
      Want(*slot, block);
    }
    wake_.wait(lock, [slot] { return slot->ready; });
    if (slot->error != nullptr) {
      std::rethrow_exception(slot->error);
    }
    // Where the passes turn, the other buffer has what comes next already.
    const int64_t next = phase == Phase::kForward ? block + 1 : block - 1;
    Slot& other = slot == slots_.data() ? slots_[1] : slots_[0];
    if (next >= 0 && next < params().n_layers && other.block != next && other.ready) {
      Want(other, next);
    }
    return BlockLease(&slot->weights);
  }

  static int64_t LargestBlockFloats(const ModelWeights& files) {
    int64_t largest = 0;
    for (int64_t layer = 0; layer < files.params().n_layers; ++layer) {
      const std::string prefix = StrCat("layers.", layer, ".");
      int64_t floats = 0;
      for (auto it = files.tensors().lower_bound(prefix);
           it != files.tensors().end() && it->first.starts_with(prefix);
           ++it) {
        floats += FloatsOf(it->second);
      }
      largest = std::max(largest, floats);
    }
    return largest;
  }

 private:
  struct Slot {
    int64_t block = -1;
    bool ready = true;  // not being filled
    AlignedFloats memory;
    BlockWeights weights;
    std::exception_ptr error;
  };

  // The next three with mutex_ held.
  Slot* Find(int64_t block) {
    const auto slot = std::find_if(
        slots_.begin(), slots_.end(), [block](const Slot& each) { return each.block == block; });
    return slot == slots_.end() ? nullptr : &*slot;
  }
  void Want(Slot& slot, int64_t block) {
    slot.block = block;
    slot.ready = false;
    wake_.notify_all();
  }
  Slot* Wanted() {
    const auto slot =
        std::find_if(slots_.begin(), slots_.end(), [](const Slot& each) { return !each.ready; });
    return slot == slots_.end() ? nullptr : &*slot;
  }

  // The reader's life.
  void Read() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return stopping_ || Wanted() != nullptr; });
      if (stopping_) {
        return;
      }
      Slot& slot = *Wanted();
      lock.unlock();
      try {
        Fill(slot);
        slot.error = nullptr;
      } catch (...) {  // no memory; whoever waits for the block hears of it
        slot.error = std::current_exception();
      }
      lock.lock();
      slot.ready = true;
      wake_.notify_all();
    }
  }

  void Fill(Slot& slot) {
    slot.weights = {};
    float* at = slot.memory.get();
    const auto take = [&](const std::string& name) {
      const TensorEntry& tensor = files_->At(name);
      float* to = at;
      at += FloatsOf(tensor);
      return std::pair(&tensor, to);
    };
    FillBlock(
        slot.weights,
        params(),
        slot.block,
        [&](const std::string& name) -> FrozenMat {
          const auto [tensor, to] = take(name);
          const int64_t out = tensor->shape[0];
          const int64_t in = tensor->shape[1];
          if (tensor->dtype == DType::kF16) {
            ReadValues(files_->InOrder(name, halves_), {to, static_cast<size_t>(out * in)});
            DropPages(tensor->data);
            return {MatrixView(to, out, in), WeightFormat::kF32, out, in};
          }
          files_->CopyRows(name, reinterpret_cast<std::byte*>(to));
          DropPages(tensor->data);
          const bool bf16 = tensor->dtype == DType::kBF16;
          return {View{to, out, in, in, bf16 ? ElementType::kBF16 : ElementType::kF32},
                  bf16 ? WeightFormat::kBF16 : WeightFormat::kF32,
                  out,
                  in};
        },
        [&](const std::string& name) -> const float* {
          const auto [tensor, to] = take(name);
          ReadValues(*tensor, {to, tensor->data.size() / DTypeSize(tensor->dtype)});
          return to;
        });
  }

  const std::shared_ptr<const ModelWeights> files_;
  MappedTensors head_tensors_;
  const HeadWeights head_;
  const int64_t slot_floats_;
  std::array<Slot, 2> slots_;
  std::vector<std::byte> halves_;  // the reader's
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread reader_;
};
}  // namespace

int64_t OffloadedBlockBytes(const ModelWeights& files) {
  return OffloadedWeights::LargestBlockFloats(files) * static_cast<int64_t>(sizeof(float));
}

std::unique_ptr<WeightSource> MakeOffloadedWeights(std::shared_ptr<const ModelWeights> files) {
  return std::make_unique<OffloadedWeights>(std::move(files));
}

}  // namespace mft
