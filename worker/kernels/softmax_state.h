// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace mft {

// What the columns of a row of logits that were seen so far are folded into.
template <typename T>
struct SoftmaxRow {
  T max{};         // of the logits
  double sum = 0;  // of e^(logit - max)
  T target_logit{};
};

using SoftmaxState = SoftmaxRow<float>;

}  // namespace mft
