// SPDX-License-Identifier: Apache-2.0
#include "worker/train/adamw.h"

#include <cmath>

#include "common/base/status.h"
#include "common/base/strings.h"

namespace mft {

AdamWScalars MakeAdamWScalars(const AdamWOptions& options) {
  const double t = static_cast<double>(options.update);
  AdamWScalars scalars;
  scalars.decay = static_cast<float>(1.0 - options.lr * options.weight_decay);
  scalars.one_minus_beta1 = static_cast<float>(1.0 - options.beta1);
  scalars.beta2 = static_cast<float>(kAdamBeta2);
  scalars.one_minus_beta2 = static_cast<float>(1.0 - kAdamBeta2);
  scalars.step_size = static_cast<float>(options.lr / (1.0 - std::pow(options.beta1, t)));
  scalars.inverse_root_correction =
      static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(kAdamBeta2, t)));
  scalars.eps = static_cast<float>(kAdamEps);
  scalars.grad_scale = static_cast<float>(options.grad_scale);
  return scalars;
}

void AdamWUpdate(const AdamWState& state, const AdamWOptions& options) {
  const size_t size = state.weight.size();
  MFT_CHECK(
      state.grad.size() == size && state.m.size() == size && state.v.size() == size,
      StrCat(
          "arenas of ", size, ", ", state.grad.size(), ", ", state.m.size(), ", ", state.v.size()));
  const AdamWScalars scalars = MakeAdamWScalars(options);
  float* const weight = state.weight.data();
  const float* const grad = state.grad.data();
  float* const m = state.m.data();
  float* const v = state.v.data();
#pragma omp parallel for simd schedule(static)
  for (size_t i = 0; i < size; ++i) {
    AdamWElement(scalars, grad[i], m[i], v[i], weight[i]);
  }
}

}  // namespace mft
