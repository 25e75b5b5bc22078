// SPDX-License-Identifier: Apache-2.0
// Mixture of experts (finetune-spec 3.2): for each row n of rms_norm(h) the k experts with the
// largest logits of the router (gate n), weighted by the softmax over those k alone:
//   out = h + sum over them of weight * expert(n).
// No capacity limit, no balancing loss. Experts work one after the other, each on the rows that
// chose it; the router is frozen and has no adapter, but gradients pass through its weights into n.
#pragma once

#include "worker/model/mlp.h"

namespace mft {

// out [M, D] holds h and gets the experts' outputs added. Counts visits in
// BlockContext::expert_rows.
void ForwardExperts(const BlockContext& context,
                    const BlockWeights& weights,
                    const BlockAdapters& adapters,
                    const MlpPiece& piece,
                    View out);

// dx [M, D]: gradient of the block's output in, of h out. The routing is computed again: from the
// same rows it comes out the same.
void BackwardExperts(const BlockContext& context,
                     const BlockWeights& weights,
                     const BlockAdapters& adapters,
                     const MlpPiece& piece,
                     const Activation& dx);

}  // namespace mft
