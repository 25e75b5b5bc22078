// SPDX-License-Identifier: Apache-2.0
// To e4m3 in blocks with a scale each: a value is its element times the block's scale, which is the
// block's largest magnitude / 448. Weights have blocks of 128 x 128, the same bytes for both
// passes; what they are multiplied by has blocks of 128 elements of a row. cuBLASLt's order of
// scales: of a weight, rows of blocks, each padded to a multiple of 4; of a factor, block by block
// all rows.
#pragma once

#include "worker/kernels/cuda/block_load.h"
#include "worker/kernels/f8_element.h"

namespace mft::cuda {

constexpr int64_t kQuantBlock = 128;

MFT_DEVICE inline float Magnitude(float value) {
  return value < 0 ? -value : value;
}

// 0 of a block of zeros.
MFT_DEVICE inline float ScaleOf(float largest) {
  return largest / F8E4M3::kLargest;
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
    const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
    block.ForEach(kQuantBlock * kQuantBlock, [&](int64_t i) {
      q(block_row * kQuantBlock + i / kQuantBlock)[block_col * kQuantBlock + i % kQuantBlock] =
          F8E4M3(value(i) * inverse);
    });
    block.Once([&] { scales(block_row)[block_col] = scale; });
  }
};

// 128 elements of a row of x [T, I], a warp each; scales [I / 128, T].
template <typename T>
struct QuantiseRowBlock {
  Rows<F8E4M3> q;
  Rows<T> x;
  Rows<float> scales;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    const int64_t blocks_of_row = x.cols / kQuantBlock;
    const int64_t row = index / blocks_of_row;
    const int64_t block_col = index % blocks_of_row;
    const T* const in = x(row) + block_col * kQuantBlock;
    F8E4M3* const out = q(row) + block_col * kQuantBlock;
    const float scale = ScaleOf(
        block.Max(kQuantBlock, [&](int64_t i) { return Magnitude(static_cast<float>(in[i])); }));
    const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
    block.ForEach(kQuantBlock,
                  [&](int64_t i) { out[i] = F8E4M3(static_cast<float>(in[i]) * inverse); });
    block.Once([&] { scales(block_col)[row] = scale; });
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
    // Neighbouring threads write neighbours of a row of the result, four each.
    block.ForEach(kQuantBlock * kQuantBlock / 4, [&](int64_t i) {
      const int64_t c = col + i / (kQuantBlock / 4);
      const int64_t r = row + i % (kQuantBlock / 4) * 4;
      uint32_t four = 0;
      for (int k = 0; k < 4; ++k) {
        four |= static_cast<uint32_t>(q(r + k)[c].bits) << (8 * k);
      }
      *reinterpret_cast<uint32_t*>(transposed(c) + r) = four;
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
