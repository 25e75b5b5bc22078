// SPDX-License-Identifier: Apache-2.0
// y = x W' + scale (x~ A') B' for a group of projections that share x (Hu et al., 2021), x~ =
// dropout(x). W is frozen, so the backward pass needs dy and x~ A' only; x itself for the gradient
// of A.
#pragma once

#include <span>

#include "worker/model/dropout.h"
#include "worker/model/lora_store.h"
#include "worker/model/weight_source.h"

namespace mft {

// Letters: T rows, I in, O_i out of projection i, S = group.inner_cols.
struct Projection {
  const FrozenMat* weight = nullptr;
  Activation y;  // [T, O_i]; in the backward pass dy, an operand where it is multiplied by `weight`
};

// Writes inner [T, S] = x~ A'. `x` [T, I].
void LoraInner(const KernelTable& kernels,
               const LoraGroup& group,
               View inner,
               View x,
               const InputDropout& dropout);

// The same, and y_i = x W_i' + beta y_i + scale inner_i B_i'. x is an operand where a weight is in
// fp8.
void LoraForward(const KernelTable& kernels,
                 const LoraGroup& group,
                 View inner,
                 const Activation& x,
                 std::span<const Projection> projections,
                 float beta,
                 const InputDropout& dropout);

// From dy: d_inner [T, S] = scale dy_i B_i, and grad B_i += scale dy_i' inner_i.
void LoraBackwardInner(const KernelTable& kernels,
                       const LoraGroup& group,
                       View d_inner,
                       View inner,
                       std::span<const Projection> projections);

// grad A += d_inner' x~
void LoraBackwardA(const KernelTable& kernels,
                   const LoraGroup& group,
                   View d_inner,
                   View x,
                   const InputDropout& dropout);

// dx [T, I] = sum dy_i W_i + dropout(d_inner A), with the mask of x
void LoraBackwardInput(const KernelTable& kernels,
                       const LoraGroup& group,
                       View dx,
                       View d_inner,
                       std::span<const Projection> projections,
                       const InputDropout& dropout);

}  // namespace mft
