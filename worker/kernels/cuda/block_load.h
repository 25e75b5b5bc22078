// SPDX-License-Identifier: Apache-2.0
// Elements of a row, kWidth at a time: one load of 16 bytes where the row allows it, since single
// bf16 elements would leave half of the memory's bandwidth unused. MFT_DEVICE is the build's:
// __device__ for CUDA, nothing where tests run the same text on the CPU.
#pragma once

#include <cstdint>

#include "worker/kernels/bf16_element.h"
#include "worker/kernels/view.h"

namespace mft::cuda {

template <typename T>
struct TypeOf;
template <>
struct TypeOf<float> {
  static constexpr ElementType kType = ElementType::kF32;
  static constexpr int kVector = 4;  // elements of 16 bytes
};
template <>
struct TypeOf<Bf16> {
  static constexpr ElementType kType = ElementType::kBF16;
  static constexpr int kVector = 8;
};

struct alignas(16) Words {
  uint32_t word[4];
};

// Elements [kWidth i, kWidth (i + 1)) of a row; kWidth is 1, TypeOf<T>::kVector, or of fp32 that of
// the type beside it.
template <int kWidth>
MFT_DEVICE inline void Load(float (&values)[kWidth], const float* row, int64_t i) {
  if constexpr (kWidth == 1) {
    values[0] = row[i];
  } else {
    constexpr int kParts = kWidth / TypeOf<float>::kVector;
    for (int part = 0; part < kParts; ++part) {
      const Words words = reinterpret_cast<const Words*>(row)[i * kParts + part];
      for (int k = 0; k < TypeOf<float>::kVector; ++k) {
        values[part * TypeOf<float>::kVector + k] = __builtin_bit_cast(float, words.word[k]);
      }
    }
  }
}

template <int kWidth>
MFT_DEVICE inline void Load(float (&values)[kWidth], const Bf16* row, int64_t i) {
  if constexpr (kWidth == 1) {
    values[0] = row[i];
  } else {
    const Words words = reinterpret_cast<const Words*>(row)[i];
    for (int k = 0; k < kWidth / 2; ++k) {
      values[2 * k] = __builtin_bit_cast(float, words.word[k] << 16);
      values[2 * k + 1] = __builtin_bit_cast(float, words.word[k] & 0xffff0000U);
    }
  }
}

template <int kWidth>
MFT_DEVICE inline void Store(float* row, int64_t i, const float (&values)[kWidth]) {
  if constexpr (kWidth == 1) {
    row[i] = values[0];
  } else {
    Words words;
    for (int k = 0; k < kWidth; ++k) {
      words.word[k] = __builtin_bit_cast(uint32_t, values[k]);
    }
    reinterpret_cast<Words*>(row)[i] = words;
  }
}

template <int kWidth>
MFT_DEVICE inline void Store(Bf16* row, int64_t i, const float (&values)[kWidth]) {
  if constexpr (kWidth == 1) {
    row[i] = Bf16(values[0]);
  } else {
    Words words;
    for (int k = 0; k < kWidth / 2; ++k) {
      words.word[k] = Bf16(values[2 * k]).bits | static_cast<uint32_t>(Bf16(values[2 * k + 1]).bits)
                                                     << 16;
    }
    reinterpret_cast<Words*>(row)[i] = words;
  }
}

// The value as it is after having been written and read.
template <typename T>
MFT_DEVICE inline float Rounded(float value) {
  return static_cast<float>(T(value));
}

// Rows of a View in a kernel.
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;
  int64_t cols = 0;
  MFT_DEVICE T* operator()(int64_t i) const { return data + i * stride; }
};

template <typename T>
Rows<T> RowsOf(View view) {
  return {static_cast<T*>(view.data), view.stride, view.cols};
}

// Whether every row of the view can be read kVector elements at a time.
template <typename T>
bool IsVectorised(View view) {
  constexpr int kVector = TypeOf<T>::kVector;
  return view.cols % kVector == 0 && view.stride % kVector == 0 &&
         reinterpret_cast<uintptr_t>(view.data) % sizeof(Words) == 0;
}

}  // namespace mft::cuda
