// SPDX-License-Identifier: Apache-2.0
// What the files of a block share.
#pragma once

#include "worker/model/block.h"

namespace mft {

inline float Eps(const BlockContext& c) {
  return static_cast<float>(c.params.norm_eps);
}

inline InputDropout DropoutAt(const BlockContext& c, DropoutSite site, int64_t begin = 0) {
  return {c.kernels, c.dropout, site, begin};
}

// dx += gradient of rms_norm at x for dy, and d_weight, if it is trained, that of its weight.
inline void BackwardNorm(const BlockContext& c,
                         const Activation& dx,
                         View dy,
                         View x,
                         const float* weight,
                         float* d_weight) {
  if (d_weight != nullptr) {
    c.kernels.rms_norm_weight_gradient(d_weight, dy, x, Eps(c));
  }
  c.kernels.rms_norm_backward(dx, dy, x, weight, Eps(c));
}

}  // namespace mft
