// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "worker/model/device_buffer.h"

namespace mft {

// Memory that is planned before the first step and never allocated again. In the process's memory
// address space is reserved at once; pages are taken when they are first written, so a plan for the
// largest batch costs nothing until one comes. A device's memory is taken at once. Threads: one at
// a time.
class Arena {
 public:
  static constexpr size_t kAlignment = 64;
  // `memory` null: the process's own. Throws std::bad_alloc, and as AllocateOnDevice.
  explicit Arena(size_t bytes, const DeviceMemory* memory = nullptr);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // A matrix [rows, cols], 64-byte aligned, not initialised. Throws std::length_error past the
  // plan.
  View Take(int64_t rows, int64_t cols, ElementType type = ElementType::kF32);
  size_t used() const { return used_; }
  // Takes from `used` on again: what is taken next shares memory with what was taken since.
  void Rewind(size_t used) { used_ = used; }
  // Bytes that Take(rows, cols, type) uses.
  static size_t Bytes(int64_t rows, int64_t cols, ElementType type = ElementType::kF32);

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t used_ = 0;
  DeviceBuffer on_device_;
};

}  // namespace mft
