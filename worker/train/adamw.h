// SPDX-License-Identifier: Apache-2.0
// AdamW on flat arenas (Loshchilov and Hutter, 2019; torch.optim.AdamW's order of operations).
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

namespace mft {

inline constexpr double kAdamBeta2 = 0.95;
inline constexpr double kAdamEps = 1e-8;

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

struct AdamWOptions {
  double lr = 0;
  double beta1 = 0;  // of this step: also in the bias correction, as torch does when it cycles
  double weight_decay = 0;  // decoupled
  double grad_scale = 1;    // multiplies each gradient as it is read
  int64_t update = 1;       // t: updates so far, this one included; a skipped step is none
};

AdamWScalars MakeAdamWScalars(const AdamWOptions& options);

// One element: gradient g into the moments m and v and the weight.
inline void AdamWElement(const AdamWScalars& s, float g, float& m, float& v, float& weight) {
  g *= s.grad_scale;
  weight *= s.decay;
  m += (g - m) * s.one_minus_beta1;
  v = v * s.beta2 + g * g * s.one_minus_beta2;
  weight -= s.step_size * (m / (std::sqrt(v) * s.inverse_root_correction + s.eps));
}

// Flat fp32 arenas of one length: master weights, gradient, first and second moment.
struct AdamWState {
  std::span<float> weight;
  std::span<const float> grad;
  std::span<float> m;
  std::span<float> v;
};

// Element-wise, so the result does not depend on the number of threads. Threads: uses the process's
// OpenMP threads; one call at a time.
void AdamWUpdate(const AdamWState& state, const AdamWOptions& options);

}  // namespace mft
