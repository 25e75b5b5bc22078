// SPDX-License-Identifier: Apache-2.0
#include "worker/model/arena.h"

#include <sys/mman.h>

#include <new>
#include <stdexcept>

#include "common/base/strings.h"

namespace mft {

Arena::Arena(size_t bytes, const DeviceMemory* memory) : size_(bytes == 0 ? kAlignment : bytes) {
  if (memory != nullptr) {
    on_device_ = AllocateOnDevice(*memory, size_, "activations");
    data_ = on_device_.get();
    return;
  }
  void* data = mmap(
      nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    throw std::bad_alloc();
  }
  data_ = static_cast<std::byte*>(data);
  // Columns of tall matrices are read with strides of pages: larger pages spare address
  // translations. Only advice; a system without them goes on with small ones.
  madvise(data_, size_, MADV_HUGEPAGE);
}

Arena::~Arena() {
  if (on_device_ == nullptr) {
    munmap(data_, size_);
  }
}

size_t Arena::Bytes(int64_t rows, int64_t cols, ElementType type) {
  const auto bytes = static_cast<size_t>(rows * cols * ElementBytes(type));
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

View Arena::Take(int64_t rows, int64_t cols, ElementType type) {
  const size_t bytes = Bytes(rows, cols, type);
  if (bytes > size_ - used_) {
    throw std::length_error(
        StrCat("arena of ", size_, " bytes holds ", used_, " and cannot take ", bytes, " more"));
  }
  const View view = TypedView(data_ + used_, rows, cols, type);
  used_ += bytes;
  return view;
}

}  // namespace mft
