// SPDX-License-Identifier: Apache-2.0
// AdamW on flat arenas (Loshchilov and Hutter, 2019; torch.optim.AdamW's order of operations).
#pragma once

#include <cstdint>
#include <span>

#include "worker/kernels/adamw_element.h"

namespace mft {

inline constexpr double kAdamBeta2 = 0.95;
inline constexpr double kAdamEps = 1e-8;

struct AdamWOptions {
  double lr = 0;
  double beta1 = 0;  // of this step: also in the bias correction, as torch does when it cycles
  double weight_decay = 0;  // decoupled
  double grad_scale = 1;    // multiplies each gradient as it is read
  int64_t update = 1;       // t: updates so far, this one included; a skipped step is none
};

AdamWScalars MakeAdamWScalars(const AdamWOptions& options);

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
