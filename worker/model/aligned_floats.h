// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace mft {

// Matrix products may add up in another order where the address has another alignment, so whatever
// is multiplied lies on a cache line: two runs of one job then have the same bits.
inline constexpr std::align_val_t kMatrixAlignment{64};

struct AlignedDelete {
  void operator()(float* data) const { ::operator delete[](data, kMatrixAlignment); }
};
using AlignedFloats = std::unique_ptr<float[], AlignedDelete>;

// Zeroed. Throws std::bad_alloc.
inline AlignedFloats MakeAlignedFloats(int64_t size) {
  const size_t bytes = static_cast<size_t>(size) * sizeof(float);
  AlignedFloats floats(static_cast<float*>(::operator new[](bytes, kMatrixAlignment)));
  std::memset(floats.get(), 0, bytes);
  return floats;
}

}  // namespace mft
