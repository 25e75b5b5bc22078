// SPDX-License-Identifier: Apache-2.0
// One element of AdamW, for every device.
#pragma once

namespace mft {

// The scalars of one update, computed in double and applied in fp32.
struct AdamWScalars {
  float decay = 1;  // 1 - lr weight_decay
  float one_minus_beta1 = 0;
  float beta2 = 0;
  float one_minus_beta2 = 0;
  float step_size = 0;                // lr / (1 - beta1^t)
  float inverse_root_correction = 1;  // 1 / sqrt(1 - beta2^t)
  float eps = 0;
  float grad_scale = 1;  // the clipping factor
};

// Gradient g into the moments m and v and the weight.
static constexpr void AdamWElement(
    const AdamWScalars& s, float g, float& m, float& v, float& weight) {
  g *= s.grad_scale;
  weight *= s.decay;
  m += (g - m) * s.one_minus_beta1;
  v = v * s.beta2 + g * g * s.one_minus_beta2;
  weight -= s.step_size * (m / (__builtin_sqrtf(v) * s.inverse_root_correction + s.eps));
}

}  // namespace mft
