// SPDX-License-Identifier: Apache-2.0
// Where a LoRA gradient is synchronised: one call in trainer.cc, once a step, after the last
// microbatch's backward pass.
#pragma once

#include <span>

#include "worker/train/ranks.h"

namespace mft {

// Sums the gradient arena over all ranks, in place. Row weights are already normalised by the
// counts of the whole step (numerics.md, "Row weights"), so nothing is divided afterwards. Waiting
// for the last microbatch costs little: adapters' gradients are a small part of a step's traffic,
// and one call is one order of summation.
inline void SumOverRanks(Ranks& ranks, std::span<float> gradient) {
  ranks.SumGradient(gradient);
}

}  // namespace mft
