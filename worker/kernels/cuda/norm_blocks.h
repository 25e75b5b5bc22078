// SPDX-License-Identifier: Apache-2.0
// RMSNorm, a row a block: x is read twice, the second time from the cache. Sums are fp32; the norm
// is rounded to T before it is multiplied by the weight, as mistral-finetune does.
#pragma once

#include "worker/kernels/cuda/quantise_blocks.h"
#include "worker/kernels/elementwise.h"

namespace mft::cuda {

template <typename T, int kWidth>
struct RmsNormRow {
  WrittenRows<T> y;
  Rows<T> x;
  const float* weight;
  float eps;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    const T* const in = x(row);
    const int64_t packs = x.cols / kWidth;
    const float sum = block.Sum(packs, [&](int64_t i) {
      float v[kWidth];
      Load<kWidth>(v, in, i);
      float squares = 0;
      for (int k = 0; k < kWidth; ++k) {
        squares += v[k] * v[k];
      }
      return squares;
    });
    const float r = 1.0F / elementwise::Sqrt(sum / static_cast<float>(x.cols) + eps);
    const WrittenRows<T> to[] = {y};
    WriteRow<kWidth>(block, row, packs, to, [&](int64_t i, float(&v)[1][kWidth]) {
      float w[kWidth];
      Load<kWidth>(v[0], in, i);
      Load<kWidth>(w, weight, i);
      for (int k = 0; k < kWidth; ++k) {
        v[0][k] = Rounded<T>(v[0][k] * r) * w[k];
      }
    });
  }
};

// Two sums of one pass.
struct SumPair {
  float a = 0;
  float b = 0;
  MFT_DEVICE SumPair operator+(const SumPair& other) const { return {a + other.a, b + other.b}; }
};

// dx += r (w dy) - x r^3 / n * sum(w dy x)
template <typename T, int kWidth>
struct RmsNormBackwardRow {
  WrittenRows<T> dx;
  Rows<T> dy, x;
  const float* weight;
  float eps;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    const T* const in = x(row);
    const T* const gradient = dy(row);
    const int64_t packs = x.cols / kWidth;
    const auto n = static_cast<float>(x.cols);
    const SumPair sum = block.Sum(packs, [&](int64_t i) {
      float v[kWidth];
      float g[kWidth];
      Load<kWidth>(v, in, i);
      float w[kWidth];
      Load<kWidth>(g, gradient, i);
      Load<kWidth>(w, weight, i);
      SumPair pair;
      for (int k = 0; k < kWidth; ++k) {
        pair.a += v[k] * v[k];
        pair.b += w[k] * g[k] * v[k];
      }
      return pair;
    });
    const float r = 1.0F / elementwise::Sqrt(sum.a / n + eps);
    const float factor = sum.b * r * r * r / n;
    const WrittenRows<T> to[] = {dx};
    WriteRow<kWidth>(block, row, packs, to, [&](int64_t i, float(&d)[1][kWidth]) {
      float v[kWidth];
      float g[kWidth];
      Load<kWidth>(v, in, i);
      Load<kWidth>(g, gradient, i);
      float w[kWidth];
      Load<kWidth>(w, weight, i);
      Load<kWidth>(d[0], dx.rows(row), i);
      for (int k = 0; k < kWidth; ++k) {
        d[0][k] += r * w[k] * g[k] - factor * v[k];
      }
    });
  }
};

// inverse_rms [T] of the rows of x.
template <typename T>
struct InverseRmsOfRow {
  Rows<T> x;
  float eps;
  float* inverse_rms;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    const T* const in = x(row);
    const float sum = block.Sum(x.cols, [&](int64_t i) {
      const float v = in[i];
      return v * v;
    });
    block.Once([&] {
      inverse_rms[row] = 1.0F / elementwise::Sqrt(sum / static_cast<float>(x.cols) + eps);
    });
  }
};

// d_weight += sum over rows, in their order, of dy x / rms: a column a thread.
template <typename T>
struct RmsNormWeightGradient {
  static constexpr int64_t kColumns = 32;  // of a block
  Rows<T> dy, x;
  int64_t rows;
  const float* inverse_rms;
  float* d_weight;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t stripe) const {
    block.ForEach(kColumns, [&](int64_t i) {
      const int64_t column = stripe * kColumns + i;
      if (column >= x.cols) {
        return;
      }
      double sum = 0;
      for (int64_t row = 0; row < rows; ++row) {
        sum += static_cast<double>(inverse_rms[row] * static_cast<float>(dy(row)[column]) *
                                   static_cast<float>(x(row)[column]));
      }
      d_weight[column] += static_cast<float>(sum);
    });
  }
};

}  // namespace mft::cuda
