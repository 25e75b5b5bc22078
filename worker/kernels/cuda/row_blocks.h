// SPDX-License-Identifier: Apache-2.0
// Rows moved, added and scaled, and the router of a mixture of experts.
#pragma once

#include "worker/kernels/cuda/block_load.h"
#include "worker/kernels/routing_row.h"

namespace mft::cuda {

// y row i = table row index[i], or (no index) row i.
template <typename T, int kWidth>
struct GatherRow {
  Rows<T> y, table;
  const int32_t* index;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    const T* const in = table(index == nullptr ? row : index[row]);
    T* const out = y(row);
    block.ForEach(y.cols / kWidth, [&](int64_t i) {
      float v[kWidth];
      Load<kWidth>(v, in, i);
      Store<kWidth>(out, i, v);
    });
  }
};

// y row index[i] += x row i; no index: row i. Indices are distinct.
template <typename T, int kWidth>
struct AddToRow {
  Rows<T> y, x;
  const int32_t* index;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    const T* const in = x(row);
    T* const out = y(index == nullptr ? row : index[row]);
    block.ForEach(x.cols / kWidth, [&](int64_t i) {
      float v[kWidth];
      float sum[kWidth];
      Load<kWidth>(v, in, i);
      Load<kWidth>(sum, out, i);
      for (int k = 0; k < kWidth; ++k) {
        sum[k] += v[k];
      }
      Store<kWidth>(out, i, sum);
    });
  }
};

// y [.., D] fp32: row index[i] += x row i in the order of the rows, a column a thread.
template <typename T>
struct AccumulateColumns {
  static constexpr int64_t kColumns = 64;  // of a block
  Rows<float> y;
  Rows<T> x;
  int64_t rows;
  const int32_t* index;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t stripe) const {
    block.ForEach(kColumns, [&](int64_t i) {
      const int64_t column = stripe * kColumns + i;
      if (column >= x.cols) {
        return;
      }
      for (int64_t row = 0; row < rows; ++row) {
        y(index[row])[column] += static_cast<float>(x(row)[column]);
      }
    });
  }
};

// A row of an arena is long: a part of it a block.
constexpr int64_t kRowPart = 4096;
constexpr int64_t PartsOf(int64_t cols) {
  return (cols + kRowPart - 1) / kRowPart;
}

template <typename T>
struct ZeroPart {
  Rows<T> y;
  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    const int64_t begin = index % PartsOf(y.cols) * kRowPart;
    T* const out = y(index / PartsOf(y.cols)) + begin;
    block.ForEach(y.cols - begin < kRowPart ? y.cols - begin : kRowPart,
                  [&](int64_t i) { out[i] = T(0.0F); });
  }
};

template <typename T, int kWidth>
struct ScaleRow {
  Rows<T> y;
  const float* factor;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    T* const out = y(row);
    block.ForEach(y.cols / kWidth, [&](int64_t i) {
      float v[kWidth];
      Load<kWidth>(v, out, i);
      for (int k = 0; k < kWidth; ++k) {
        v[k] *= factor[row];
      }
      Store<kWidth>(out, i, v);
    });
  }
};

template <typename To, typename From>
struct ConvertPart {
  Rows<To> y;
  Rows<From> x;
  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    const int64_t row = index / PartsOf(y.cols);
    const int64_t begin = index % PartsOf(y.cols) * kRowPart;
    To* const out = y(row) + begin;
    const From* const in = x(row) + begin;
    block.ForEach(y.cols - begin < kRowPart ? y.cols - begin : kRowPart,
                  [&](int64_t i) { out[i] = To(static_cast<float>(in[i])); });
  }
};

// Rows of the router: few experts, so a row a thread.
constexpr int64_t kRowsOfRouter = 128;

template <typename T>
struct RouteRows {
  Rows<float> weight;
  int32_t* chosen;
  Rows<T> logits;
  int64_t rows;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    block.ForEach(kRowsOfRouter, [&](int64_t i) {
      const int64_t row = index * kRowsOfRouter + i;
      if (row < rows) {
        elementwise::RouteRow(
            weight(row), chosen + row * weight.cols, logits(row), logits.cols, weight.cols);
      }
    });
  }
};

template <typename T>
struct RouteBackwardRows {
  Rows<T> d_logits;
  Rows<float> weighted, weight;
  const int32_t* chosen;
  int64_t rows;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    block.ForEach(kRowsOfRouter, [&](int64_t i) {
      const int64_t row = index * kRowsOfRouter + i;
      if (row < rows) {
        elementwise::RouteBackwardRow(d_logits(row),
                                      static_cast<const float*>(weighted(row)),
                                      static_cast<const float*>(weight(row)),
                                      chosen + row * weight.cols,
                                      d_logits.cols,
                                      weight.cols);
      }
    });
  }
};

}  // namespace mft::cuda
