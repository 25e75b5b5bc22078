// SPDX-License-Identifier: Apache-2.0
// Cross entropy (softmax_row.h), a row of logits a block of threads.
#pragma once

#include "worker/kernels/cuda/block_load.h"
#include "worker/kernels/softmax_row.h"

namespace mft::cuda {

// As FoldSoftmaxRow, and scales the row's sums over earlier columns.
template <typename T, int kWidth>
struct FoldSoftmaxRow {
  SoftmaxState* state;
  Rows<T> logits;
  int64_t first;
  const int32_t* target;
  Rows<T> sums;  // cols 0: none

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    T* const x = logits(row);
    const int64_t packs = logits.cols / kWidth;
    const int64_t column = target[row] - first;
    const bool has_target = column >= 0 && column < logits.cols;
    const SoftmaxState before = state[row];
    const float target_logit = has_target ? static_cast<float>(x[column]) : before.target_logit;
    // The reductions are barriers: nothing is written before all have read.
    const float block_max = block.Max(packs, [&](int64_t i) {
      float v[kWidth];
      Load<kWidth>(v, x, i);
      float largest = v[0];
      for (int k = 1; k < kWidth; ++k) {
        largest = v[k] > largest ? v[k] : largest;
      }
      return largest;
    });
    const bool is_first = first == 0;
    const float max = !is_first && before.max > block_max ? before.max : block_max;
    const float factor = is_first || before.max == max ? 1.0F : elementwise::Exp(before.max - max);
    const double sum = block.Sum(packs, [&](int64_t i) {
      float v[kWidth];
      Load<kWidth>(v, x, i);
      float part = 0;
      for (int k = 0; k < kWidth; ++k) {
        v[k] = elementwise::Exp(v[k] - max);
        part += v[k];
        v[k] = i * kWidth + k == column ? 0.0F : v[k];
      }
      Store<kWidth>(x, i, v);
      return static_cast<double>(part);
    });
    block.Once([&] {
      state[row].max = max;
      state[row].sum = sum + (is_first ? 0 : before.sum * static_cast<double>(factor));
      state[row].target_logit = target_logit;
    });
    if (factor != 1.0F) {
      T* const y = sums(row);
      block.ForEach(sums.cols, [&](int64_t i) { y[i] = T(static_cast<float>(y[i]) * factor); });
    }
  }
};

// One block for all rows: their sum has one order.
struct CrossEntropyRows {
  const SoftmaxState* state;
  int64_t rows;
  const float* row_weight;
  float* exp_factor;
  float* target_factor;
  double* sum;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t /*index*/) const {
    const double total = block.Sum(rows, [&](int64_t i) {
      const double weight = row_weight[i];
      exp_factor[i] = static_cast<float>(weight / state[i].sum);
      target_factor[i] = static_cast<float>(weight * elementwise::TargetGradientOf(state[i]));
      return weight * elementwise::CrossEntropyOf(state[i]);
    });
    block.Once([&] { *sum += total; });
  }
};

template <typename T>
struct SoftmaxGradientRow {
  Rows<T> logits;
  const SoftmaxState* state;
  int64_t first;
  const int32_t* target;
  const float* exp_factor;
  const float* target_factor;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    T* const x = logits(row);
    const int64_t column = target[row] - first;
    block.ForEach(logits.cols, [&](int64_t i) {
      const float e = elementwise::Exp(static_cast<float>(x[i]) - state[row].max);
      x[i] = T(i == column ? target_factor[row] : e * exp_factor[row]);
    });
  }
};

struct FoldSum {
  double* total;
  double* sum;
  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t /*index*/) const {
    block.Once([&] {
      *total += *sum;
      *sum = 0;
    });
  }
};

}  // namespace mft::cuda
