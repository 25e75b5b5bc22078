// SPDX-License-Identifier: Apache-2.0
// Where a LoRA gradient is synchronised: one call in trainer.cc, once a step, after the last
// microbatch's backward pass.
#pragma once

#include <span>

namespace mft {

// Sums the gradient arena over all ranks, in place, and returns the sum of the ranks' losses. Row
// weights are already normalised by the counts of the whole step (numerics.md, "Row weights"), so
// nothing is divided afterwards. This build trains on one rank (LoadTrainContext refuses more),
// whose sums are the sums.
inline double SumOverRanks(std::span<float> /*gradient*/, double loss) {
  return loss;
}

}  // namespace mft
