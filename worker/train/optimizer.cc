// SPDX-License-Identifier: Apache-2.0
#include "worker/train/optimizer.h"

#include <cmath>

#include "worker/train/grad_clip.h"

namespace mft {

double GradNorm(ParamStore& trained) {
  if (const KernelTable* kernels = trained.device(); kernels != nullptr) {
    return std::sqrt(trained.DeviceSumOfSquares());
  }
  return std::sqrt(SumOfSquares(trained.grad()));
}

void UpdateWeights(ParamStore& trained, const AdamWOptions& options) {
  if (const KernelTable* kernels = trained.device(); kernels != nullptr) {
    kernels->adamw(trained.device_arenas(), MakeAdamWScalars(options));
    return;
  }
  AdamWUpdate({.weight = trained.master(),
               .grad = trained.grad(),
               .m = trained.moment1(),
               .v = trained.moment2()},
              options);
}

}  // namespace mft
