// SPDX-License-Identifier: Apache-2.0
// Cross entropy of one row whose columns come in blocks; static for the reasons of elementwise.h.
#pragma once

#include "worker/kernels/elementwise.h"
#include "worker/kernels/softmax_state.h"

namespace mft::elementwise {

// Folds `n` more columns into the row, `target` being the place of its target among them, if it is
// one: logits become e^(logit - max), that of the target 0. Returns what sums over earlier columns
// are to be multiplied by, since max has grown. The sum runs over blocks, each in T, added up in
// fp64, so that a large vocabulary loses nothing.
template <typename T>
static T FoldSoftmaxRow(SoftmaxRow<T>& row, T* logits, int64_t n, int64_t target, bool first) {
  constexpr int64_t kBlock = 1024;
  const T block_max = MaxOf(logits, n);
  const T max = !first && row.max > block_max ? row.max : block_max;
  const T factor = first || row.max == max ? T(1) : Exp(row.max - max);
  const bool has_target = target >= 0 && target < n;
  if (has_target) {
    row.target_logit = logits[target];
  }
  double sum = first ? 0 : row.sum * static_cast<double>(factor);
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = begin + kBlock < n ? begin + kBlock : n;
    sum += static_cast<double>(ExpRow(logits + begin, end - begin, T(1), max));
  }
  if (has_target) {
    logits[target] = 0;
  }
  row.max = max;
  row.sum = sum;
  return factor;
}

// Of a row whose columns have all been folded in: log sum exp - logit of the target.
template <typename T>
static constexpr double CrossEntropyOf(const SoftmaxRow<T>& row) {
  return static_cast<double>(row.max) - static_cast<double>(row.target_logit) +
         __builtin_log(row.sum);
}

// softmax - 1 of the target.
template <typename T>
static constexpr double TargetGradientOf(const SoftmaxRow<T>& row) {
  return __builtin_exp(static_cast<double>(row.target_logit) - static_cast<double>(row.max)) /
             row.sum -
         1;
}

}  // namespace mft::elementwise
