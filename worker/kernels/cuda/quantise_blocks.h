// SPDX-License-Identifier: Apache-2.0
// To e4m3 in blocks with a scale each: a value is its element times the block's scale, which is the
// block's largest magnitude / 448. Weights have blocks of 128 x 128, the same bytes for both
// passes; what they are multiplied by has blocks of 128 elements of a row, quantised by the kernel
// that writes the row (WriteRow), while the elements are in registers, or by a pass of its own. The
// order of scales is cuBLASLt's (gemm_quantised.cc): of a weight, rows of blocks, each padded to a
// multiple of 4; of rows, block by block all rows.
#pragma once

#include "worker/kernels/cuda/block_load.h"
#include "worker/kernels/f8_element.h"

namespace mft::cuda {

constexpr int64_t kQuantBlock = 128;

MFT_DEVICE inline float Magnitude(float value) {
  return value < 0 ? -value : value;
}

// NaN is no magnitude.
template <int kWidth>
MFT_DEVICE inline float LargestMagnitude(const float (&values)[kWidth]) {
  float largest = 0;
  for (int k = 0; k < kWidth; ++k) {
    const float magnitude = Magnitude(values[k]);
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// 0 of a block of zeros, and of one so small that 1 / scale would be no number.
MFT_DEVICE inline float ScaleOf(float largest) {
  constexpr float kSmallestNormal = 0x1p-126F;
  const float scale = largest / F8E4M3::kLargest;
  return scale < kSmallestNormal ? 0.0F : scale;
}

MFT_DEVICE inline float InverseOf(float scale) {
  return scale > 0 ? 1.0F / scale : 0.0F;
}

// QuantisedRows in a kernel.
struct QuantisedOut {
  Rows<F8E4M3> q;
  Rows<float> scales;
  MFT_DEVICE bool present() const { return q.data != nullptr; }
};

// An Activation that a kernel writes.
template <typename T>
struct WrittenRows {
  Rows<T> rows;
  QuantisedOut quantised;
};

// Elements [kWidth i, kWidth (i + 1)) of a row, in one store.
template <int kWidth>
MFT_DEVICE inline void StoreF8(F8E4M3* row,
                               int64_t i,
                               const float (&values)[kWidth],
                               float factor) {
  static_assert(kWidth % 4 == 0);
  struct alignas(kWidth) Bytes {
    uint32_t four[kWidth / 4];
  };
  Bytes bytes = {};
  for (int k = 0; k < kWidth; ++k) {
    bytes.four[k / 4] |= static_cast<uint32_t>(F8E4M3(values[k] * factor).bits) << (8 * (k % 4));
  }
  reinterpret_cast<Bytes*>(row)[i] = bytes;
}

// Quantises a row of each output: values(i, v) makes its elements [kWidth i, kWidth (i + 1)).
template <int kWidth, int kOutputs, typename Block, typename Values>
MFT_DEVICE void QuantiseRow(Block& block,
                            int64_t row,
                            int64_t packs,
                            const QuantisedOut (&to)[kOutputs],
                            const Values& values) {
  constexpr int kGroup = static_cast<int>(kQuantBlock) / kWidth;
  block.template ForGroups<kGroup, kOutputs, kWidth>(
      packs,
      values,
      [&](int64_t i, const float(&v)[kOutputs][kWidth], const float(&largest)[kOutputs]) {
        for (int o = 0; o < kOutputs; ++o) {
          const float scale = ScaleOf(largest[o]);
          StoreF8<kWidth>(to[o].q(row), i, v[o], InverseOf(scale));
          if (i % kGroup == 0) {
            to[o].scales(i / kGroup)[row] = scale;
          }
        }
      });
}

// Writes a row of each output, and quantises what was written where there is memory for it (of all
// outputs or of none; kWidth is then not 1). values(i, v) makes elements [kWidth i, kWidth (i +
// 1)).
template <int kWidth, typename T, int kOutputs, typename Block, typename Values>
MFT_DEVICE void WriteRow(Block& block,
                         int64_t row,
                         int64_t packs,
                         const WrittenRows<T> (&to)[kOutputs],
                         const Values& values) {
  const auto write = [&](int64_t i, float(&v)[kOutputs][kWidth]) {
    values(i, v);
    for (int o = 0; o < kOutputs; ++o) {
      Store<kWidth>(to[o].rows(row), i, v[o]);
    }
  };
  if constexpr (kWidth > 1) {
    if (to[0].quantised.present()) {
      QuantisedOut quantised[kOutputs];
      for (int o = 0; o < kOutputs; ++o) {
        quantised[o] = to[o].quantised;
      }
      QuantiseRow<kWidth>(
          block, row, packs, quantised, [&](int64_t i, float(&v)[kOutputs][kWidth]) {
            write(i, v);
            for (int o = 0; o < kOutputs; ++o) {
              for (int k = 0; k < kWidth; ++k) {
                v[o][k] = Rounded<T>(v[o][k]);
              }
            }
          });
      return;
    }
  }
  block.ForEach(packs, [&](int64_t i) {
    float v[kOutputs][kWidth];
    write(i, v);
  });
}

// A block of a weight [O, I], block by block of a row of blocks.
template <typename T>
struct QuantiseWeightBlock {
  Rows<F8E4M3> q;
  Rows<T> w;
  Rows<float> scales;
  int64_t blocks_of_row;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    const int64_t block_row = index / blocks_of_row;
    const int64_t block_col = index % blocks_of_row;
    const auto value = [&](int64_t i) {
      return static_cast<float>(
          w(block_row * kQuantBlock + i / kQuantBlock)[block_col * kQuantBlock + i % kQuantBlock]);
    };
    const float scale = ScaleOf(
        block.Max(kQuantBlock * kQuantBlock, [&](int64_t i) { return Magnitude(value(i)); }));
    const float inverse = InverseOf(scale);
    block.ForEach(kQuantBlock * kQuantBlock, [&](int64_t i) {
      q(block_row * kQuantBlock + i / kQuantBlock)[block_col * kQuantBlock + i % kQuantBlock] =
          F8E4M3(value(i) * inverse);
    });
    block.Once([&] { scales(block_row)[block_col] = scale; });
  }
};

// A row of x [T, I], by a pass of its own.
template <typename T, int kWidth>
struct QuantiseRowBlock {
  QuantisedOut to;
  Rows<T> x;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    const T* const in = x(row);
    const QuantisedOut outputs[] = {to};
    QuantiseRow<kWidth>(block, row, x.cols / kWidth, outputs, [&](int64_t i, float(&v)[1][kWidth]) {
      Load<kWidth>(v[0], in, i);
    });
  }
};

// A tile of 128 x 128 bytes of q [O, I] to its place in transposed [I, O].
struct TransposeQuantised {
  Rows<F8E4M3> transposed, q;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    const int64_t blocks_of_row = q.cols / kQuantBlock;
    const int64_t row = index / blocks_of_row * kQuantBlock;
    const int64_t col = index % blocks_of_row * kQuantBlock;
    // 4 x 4 bytes each. 32 neighbouring threads have 8 of them down and 4 across: they read 16
    // bytes of each of 32 rows, and write 32 bytes of each of 16.
    block.ForEach(kQuantBlock * kQuantBlock / 16, [&](int64_t i) {
      const int64_t lane = i % 32;
      const int64_t patch = i / 32;
      const int64_t r = row + (patch % 4 * 8 + lane % 8) * 4;
      const int64_t c = col + (patch / 4 * 4 + lane / 8) * 4;
      uint32_t in[4];
      for (int k = 0; k < 4; ++k) {
        in[k] = *reinterpret_cast<const uint32_t*>(q(r + k) + c);
      }
      for (int k = 0; k < 4; ++k) {
        uint32_t out = 0;
        for (int j = 0; j < 4; ++j) {
          out |= (in[j] >> (8 * k) & 0xffU) << (8 * j);
        }
        *reinterpret_cast<uint32_t*>(transposed(c + k) + r) = out;
      }
    });
  }
};

// scales of q' from those of q.
struct TransposeScales {
  Rows<float> transposed, scales;
  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    block.ForEach(scales.cols, [&](int64_t col) { transposed(col)[row] = scales(row)[col]; });
  }
};

}  // namespace mft::cuda
