// SPDX-License-Identifier: Apache-2.0
// Operands of fp8 products: e4m3 with an fp32 scale for each block of elements (numerics.md,
// "Precision").
#pragma once

#include <cstddef>
#include <cstdint>

#include "worker/kernels/view.h"

namespace mft {

inline constexpr int64_t kQuantBlockSize = 128;

// A frozen weight [O, I] with a scale for each 128 x 128 elements, so that it is the same bytes
// transposed. Sides are multiples of 128.
struct QuantisedMat {
  View data;    // [O, I] kF8
  View scales;  // [O / 128, I / 128], stride ScaleStride(I)
};
constexpr int64_t ScaleStride(int64_t cols) {
  return (cols / kQuantBlockSize + 3) / 4 * 4;
}

// What multiplies such a weight, with a scale for each 128 elements of a row.
struct QuantisedRows {
  View data;    // [T, I] kF8
  View scales;  // [I / 128, T]
  bool present() const { return data.data != nullptr; }
  // For a kernel that writes a part of the rows.
  QuantisedRows Rows(int64_t begin, int64_t count) const {
    return present() ? QuantisedRows{data.Rows(begin, count), scales.Cols(begin, count)} : *this;
  }
  // Whether a product can read them: the scales that it reads have no stride, so that a part of
  // more rows is none.
  bool is_operand() const { return present() && scales.stride == scales.cols; }
};

// Activations or their gradients as layers pass them on: the rows, and the same quantised where a
// weight in fp8 is to multiply them. A kernel that writes the rows writes both.
struct Activation {
  View view;                // [T, I] of the table's type
  QuantisedRows quantised;  // not present: nothing in fp8 reads the rows
  // NOLINTNEXTLINE(google-explicit-constructor): a view is an activation that is not quantised
  Activation(View rows, QuantisedRows as_f8 = {}) : view(rows), quantised(as_f8) {}
  Activation Rows(int64_t begin, int64_t count) const {
    return {view.Rows(begin, count), quantised.Rows(begin, count)};
  }
};

// Memory of QuantisedRows: the elements, then the scales.
inline constexpr int64_t kQuantisedAlignment = 256;
constexpr int64_t QuantisedPartBytes(int64_t bytes) {
  return (bytes + kQuantisedAlignment - 1) / kQuantisedAlignment * kQuantisedAlignment;
}
constexpr int64_t QuantisedRowsBytes(int64_t rows, int64_t cols) {
  return QuantisedPartBytes(rows * cols) +
         QuantisedPartBytes(rows * (cols / kQuantBlockSize) * ElementBytes(ElementType::kF32));
}
inline QuantisedRows QuantisedRowsAt(std::byte* at, int64_t rows, int64_t cols) {
  return {
      TypedView(at, rows, cols, ElementType::kF8),
      TypedView(
          at + QuantisedPartBytes(rows * cols), cols / kQuantBlockSize, rows, ElementType::kF32)};
}

}  // namespace mft
