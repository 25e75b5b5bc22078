// SPDX-License-Identifier: Apache-2.0
// The segments of packed rows as lists of a fixed size in a device's memory: what a graph that was
// built for so many segments reads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "worker/kernels/device_error.h"
#include "worker/kernels/kernels.h"

namespace mft::cuda {

// Memory of a device that only grows. Lives until the process ends, as what uses it does.
class GrowingBuffer {
 public:
  GrowingBuffer(const DeviceMemory& memory, std::string what)
      : memory_(memory), what_(std::move(what)) {}

  // Its content is lost where it grows. Throws DeviceOutOfMemory that says what it is.
  void* AtLeast(size_t bytes) {
    if (bytes > size_) {
      Release();
      data_ = memory_.allocate(bytes);
      if (data_ == nullptr) {
        throw DeviceOutOfMemory("no memory of the GPU is left for " + what_ + " of " +
                                std::to_string(bytes) + " bytes");
      }
      size_ = bytes;
    }
    return data_;
  }

  size_t size() const { return size_; }

  void Release() {
    if (data_ != nullptr) {
      memory_.synchronize();  // what is queued may use it
      memory_.release(data_);
      data_ = nullptr;
      size_ = 0;
    }
  }

 private:
  const DeviceMemory& memory_;
  const std::string what_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

// All layers of a chunk have the same segments, which go up once.
class SegmentLists {
 public:
  static constexpr size_t kMatrices = 3;
  struct Pieces {
    int32_t* lengths;                         // [segments]
    std::array<int32_t*, kMatrices> offsets;  // [segments + 1] each
  };

  explicit SegmentLists(const DeviceMemory& memory)
      : memory_(memory), lists_(memory, "lists of segments") {}

  // The rows of each segment, and for matrices of rows of `widths` elements where each begins, in
  // elements. `cu` has at most `segments`; those that are not there have no rows.
  Pieces Upload(std::span<const int32_t> cu,
                int64_t segments,
                const std::array<int64_t, kMatrices>& widths) {
    const auto count = static_cast<size_t>(segments) + 1;
    const size_t piece = (count + kAligned - 1) / kAligned * kAligned;
    std::vector<int32_t> lists((1 + kMatrices) * piece, 0);
    for (size_t i = 0; i + 1 < cu.size(); ++i) {
      lists[i] = cu[i + 1] - cu[i];
    }
    for (size_t matrix = 0; matrix < kMatrices; ++matrix) {
      for (size_t i = 0; i < count; ++i) {
        const int64_t row = cu[std::min(i, cu.size() - 1)];
        lists[(matrix + 1) * piece + i] = static_cast<int32_t>(row * widths[matrix]);
      }
    }
    const size_t bytes = lists.size() * sizeof(int32_t);
    if (bytes > lists_.size()) {
      uploaded_.clear();  // also where there is no memory for more
    }
    auto* const data = static_cast<int32_t*>(lists_.AtLeast(bytes));
    if (lists != uploaded_) {
      memory_.upload(data, lists.data(), bytes);
      uploaded_ = std::move(lists);
    }
    Pieces pieces{.lengths = data, .offsets = {}};
    for (size_t matrix = 0; matrix < kMatrices; ++matrix) {
      pieces.offsets[matrix] = data + (matrix + 1) * piece;
    }
    return pieces;
  }

 private:
  static constexpr size_t kAligned = 64;  // elements
  const DeviceMemory& memory_;
  GrowingBuffer lists_;
  std::vector<int32_t> uploaded_;
};

}  // namespace mft::cuda
