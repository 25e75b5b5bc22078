// SPDX-License-Identifier: Apache-2.0
// Bodies of a mixture of experts' router (finetune-spec 3.2), static and of built-ins only as
// elementwise.h. Letters: E experts, k of them chosen.
#pragma once

#include <cstdint>

#include "worker/kernels/elementwise.h"

namespace mft::elementwise {

// chosen [k]: the k largest of logits [E], largest first, the lower number first among equals;
// weight [k] = softmax over the chosen alone. Always k different experts, whatever the logits.
template <typename T, typename Logit>
static constexpr void RouteRow(
    T* weight, int32_t* chosen, const Logit* logits, int64_t experts, int64_t k) {
  int64_t count = 0;
  for (int64_t e = 0; e < experts; ++e) {
    int64_t at = count;
    while (at > 0 && logits[e] > logits[chosen[at - 1]]) {
      --at;
    }
    if (at == k) {
      continue;
    }
    count += count < k ? 1 : 0;
    for (int64_t i = count - 1; i > at; --i) {
      chosen[i] = chosen[i - 1];
    }
    chosen[at] = static_cast<int32_t>(e);
  }
  T sum = 0;
  for (int64_t j = 0; j < k; ++j) {
    weight[j] = Exp(T(logits[chosen[j]]) - T(logits[chosen[0]]));
    sum += weight[j];
  }
  for (int64_t j = 0; j < k; ++j) {
    weight[j] /= sum;
  }
}

// d_logits [E] from weighted [k] = weight times its gradient: softmax backward over the chosen,
// zero elsewhere. The product, and not the gradient alone, is what the experts' backward pass has
// at hand, and no weight of zero is divided by.
template <typename T, typename Logit>
static constexpr void RouteBackwardRow(Logit* d_logits,
                                       const T* weighted,
                                       const T* weight,
                                       const int32_t* chosen,
                                       int64_t experts,
                                       int64_t k) {
  for (int64_t e = 0; e < experts; ++e) {
    d_logits[e] = Logit(0);
  }
  T sum = 0;
  for (int64_t j = 0; j < k; ++j) {
    sum += weighted[j];
  }
  for (int64_t j = 0; j < k; ++j) {
    d_logits[chosen[j]] = Logit(weighted[j] - weight[j] * sum);
  }
}

}  // namespace mft::elementwise
