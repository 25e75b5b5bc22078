// SPDX-License-Identifier: Apache-2.0
// One SwiGLU network, y = w2(silu(w1 x) * w3 x), on some rows: the feed-forward half of a dense
// block, or one expert on the rows that chose it.
#pragma once

#include "worker/model/dropout.h"
#include "worker/model/lora_linear.h"
#include "worker/model/quantised_scratch.h"

namespace mft {

// Letters: T rows, D width, F hidden width, S columns of x A. Everything is borrowed.
struct Ffn {
  const KernelTable& kernels;
  const FrozenMat& w1;
  const FrozenMat& w2;
  const FrozenMat& w3;
  const FfnAdapters& lora;
  View gate;     // [T, F] w1 x, then its gradient
  View up;       // [T, F] w3 x, then its gradient
  View act;      // [T, F] scratch
  View inner;    // [T, S] x A of both groups, and what else shares the slot
  View d_inner;  // [T, S] backward pass only
  QuantisedScratch quantised;
  InputDropout drop_gate_up;
  InputDropout drop_down;
  FfnGrads grads;  // present where the weights are trained
  bool ReadsInput() const { return lora.gate_up.inner_cols > 0 || grads.present(); }
};

// gate, up and x A of them, from x [T, D], an operand where the weights are in fp8.
void FfnGateUp(const Ffn& ffn, const Activation& x);
// y [T, D] = w2(silu(gate) * up) + beta y, and x A of w2. y may be the memory of x.
void FfnDown(const Ffn& ffn, View y, float beta);
// x A of w2 alone.
void FfnDownInner(const Ffn& ffn);

// From dy [T, D]: gradients of w2, of its adapter and of w1's and w3's B; gate and up become their
// gradients. `dot` [T], if not null: the sum over a row of dy times what FfnDown adds to y.
void FfnBackwardDown(const Ffn& ffn, const Activation& dy, float* dot);
// After that, and before anything else is quantised: gradients of the A's of w1 and w3 from x [T,
// D], and then dx [T, D], which may be the memory of x. x is read if ReadsInput().
void FfnBackwardInput(const Ffn& ffn, View x, View dx);

}  // namespace mft
