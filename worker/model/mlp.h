// SPDX-License-Identifier: Apache-2.0
// The second half of a block: out = h + mlp(rms_norm(h)), h = Saved::residual; of a dense model one
// network, of a mixture of experts several (moe.h).
#pragma once

#include <cstdint>

#include "worker/model/block.h"

namespace mft {

// The MLP works on a few rows at a time, so that what it computes but does not keep stays small.
// Letters: M rows, D width, k experts a row (1 in a dense model).
struct MlpPiece {
  int64_t begin = 0;  // row of the tile
  View residual;      // [M, D]
  View gate, up;      // [k M, F] where kept, otherwise [M, F]
  View lora_inner;    // [M, S]
  View expert_inner;  // [k M, S'] where kept, otherwise [M, S']
  View norm;          // [M, D] scratch; then its gradient
  View act, d_inner;  // [M, F], [M, S] scratch
};

void MlpForward(const BlockContext& context,
                const BlockWeights& weights,
                const BlockAdapters& adapters,
                const Saved& saved,
                View out);

// dx [T, D]: gradient of the block's output in, of the residual h out. Computes again what the
// policy did not keep.
void MlpBackward(const BlockContext& context,
                 const BlockWeights& weights,
                 const BlockAdapters& adapters,
                 const Saved& saved,
                 const Activation& dx);

}  // namespace mft
