// SPDX-License-Identifier: Apache-2.0
// Matrices without Torch: what kernels and layers pass around.
#pragma once

#include <cstdint>

namespace mft {

// Element type of a View. The CPU kernels compute in fp32; frozen weights may be bf16. On devices
// activations have the type of the kernel table.
enum class ElementType { kF32, kBF16, kF8 };  // kF8: e4m3, only in a QuantisedMat

constexpr int64_t ElementBytes(ElementType type) {
  return type == ElementType::kBF16 ? 2 : type == ElementType::kF8 ? 1 : 4;
}

// A borrowed row-major matrix [rows, cols]; `stride` elements from row to row. The memory must
// outlive the view.
struct View {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
  ElementType type = ElementType::kF32;

  float* f32() const { return static_cast<float*>(data); }
  float* row(int64_t i) const { return f32() + i * stride; }
  // Of kBF16.
  const uint16_t* bf16_row(int64_t i) const {
    return static_cast<const uint16_t*>(data) + i * stride;
  }
  // The same memory, fewer rows or columns.
  View Rows(int64_t begin, int64_t count) const {
    return {At(begin * stride), count, cols, stride, type};
  }
  View Cols(int64_t begin, int64_t count) const { return {At(begin), rows, count, stride, type}; }

 private:
  void* At(int64_t elements) const {
    return static_cast<char*>(data) + elements * ElementBytes(type);
  }
};

// A contiguous matrix.
inline View MatrixView(float* data, int64_t rows, int64_t cols) {
  return {data, rows, cols, cols, ElementType::kF32};
}
inline View TypedView(void* data, int64_t rows, int64_t cols, ElementType type) {
  return {data, rows, cols, cols, type};
}

}  // namespace mft
