// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>

#include "common/base/strings.h"
#include "worker/model/device_buffer.h"

namespace mft {

// The lists of a chunk (tokens, offsets, row weights) where kernels read them: in the process's
// memory the lists themselves, on a device copies. Threads: one at a time.
class BatchMemory {
 public:
  // `memory` null: the process's own.
  BatchMemory(const DeviceMemory* memory, size_t bytes) : memory_(memory), size_(bytes) {
    if (memory != nullptr) {
      buffer_ = AllocateOnDevice(*memory, bytes, "the lists of a chunk");
    }
  }

  // What was put is used up: work that was given to the device before reads it before it changes.
  void Reset() { used_ = 0; }

  // On a device `list` is the caller's again on return; otherwise it must outlive the use.
  template <typename T>
  const T* Put(std::span<const T> list) {
    if (memory_ == nullptr || list.empty()) {
      return list.data();
    }
    std::byte* const to = Take(list.size_bytes());
    memory_->upload(to, list.data(), list.size_bytes());
    return reinterpret_cast<const T*>(to);
  }

 private:
  static constexpr size_t kAlignment = 64;
  std::byte* Take(size_t bytes) {
    if (bytes > size_ - used_) {
      throw std::length_error(
          StrCat("lists of a chunk: ", bytes, " bytes beside ", used_, " of ", size_));
    }
    std::byte* const at = buffer_.get() + used_;
    used_ = std::min(size_, (used_ + bytes + kAlignment - 1) / kAlignment * kAlignment);
    return at;
  }

  const DeviceMemory* memory_;
  const size_t size_;
  size_t used_ = 0;
  DeviceBuffer buffer_;
};

}  // namespace mft
