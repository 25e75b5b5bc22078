// SPDX-License-Identifier: Apache-2.0
// One transformer block, forward and backward (finetune-spec 3.2):
//   h = x + attention(rms_norm(x));  out = h + mlp(rms_norm(h)),
// with mlp(n) = w2(silu(w1 n) * w3 n), or a weighted sum of such experts (moe.h).
#pragma once

#include <cstdint>
#include <span>

#include "common/checkpoint/activation_plan.h"
#include "worker/model/dropout.h"
#include "worker/model/lora_linear.h"
#include "worker/model/quantised_scratch.h"
#include "worker/model/routing.h"

namespace mft {

// Letters: T rows, D width, H query heads, K key heads, E head width, F hidden width, S columns of
// all x A that every row has, S' those of one expert, k experts that a row goes to (dense: 1).

// What a forward pass leaves for the backward pass: the slots of activation_plan.h, as memory of
// the owner's choice.
struct Saved {
  View input;         // [T, D]  the residual stream that enters
  View q;             // [T, H E] after rotary
  View k;             // [T, K E] after rotary
  View v;             // [T, K E]
  View attention;     // [T, H E]
  View lse;           // [T, H]
  View residual;      // [T, D]  h
  View gate;          // [k T, F] where kept, otherwise [M, F]: w1 n, then its gradient
  View up;            // likewise: w3 n
  View lora_inner;    // [T, S]
  View expert_inner;  // [k T, S'] where kept, otherwise [M, S']; experts only
};

// Scratch that one block at a time uses. Two pieces of memory have two uses each, never at once.
struct BlockScratch {
  View norm;         // [T, D] output of a norm, then its gradient; memory of dq
  View dq;           // [T, H E]
  View d_attention;  // [T, H E]
  View late_norm;    // [T, D] as `norm`, while dq is there; memory of d_attention, and of
                     // Saved::residual where that is not kept
  View dk;           // [T, K E]
  View dv;           // [T, K E]
  View d_inner;      // [T, S]
  View act;          // [M, F] M: rows that the MLP works on at a time, at most T
  QuantisedScratch quantised;
  // Mixture of experts only. Not const: one expert's work after the other's.
  View expert_rows;            // [M, D] an expert's input, output, or gradient
  View router;                 // [M, experts] logits, then their gradient
  View d_expert_inner;         // [M, S']
  Routing* routing = nullptr;  // of M rows
};

// What stays the same for all blocks of one pass over a tile of whole segments.
// Rows of a call that go on with a conversation.
struct CachedTurn {
  int64_t begin = 0;
  int64_t rows = 0;
  // [earlier tokens + rows, K E]: what the rows attend to; the last `rows` are written by the
  // forward pass.
  View keys, values;
};

struct BlockContext {
  const KernelTable& kernels;
  const ModelParams& params;
  AttentionShape attention;
  const int32_t* position;    // [T]
  const float* rotary_table;  // [positions, E/2, 2]
  BlockScratch scratch;
  RecomputePolicy policy = RecomputePolicy::kNothing;
  Dropout dropout = {};
  // [experts] or empty: the forward pass adds how many rows went to each.
  std::span<int64_t> expert_rows = {};
  // Generation: together the rows of the call; then `attention` has no segments of its own.
  std::span<const CachedTurn> cache = {};
};

// Writes every slot of `saved` but `input`, which it reads, and `out` [T, D], which may be the
// memory of `input`.
void BlockForward(const BlockContext& context,
                  const BlockWeights& weights,
                  const BlockAdapters& adapters,
                  const Saved& saved,
                  View out);

// dx [T, D]: gradient of `out` in, gradient of `input` out, quantised both times where it has
// memory for that. Adds the adapters' gradients to their views, and those of weights that are
// trained themselves (BlockWeights::grads; REQUIRES need_dx). Computes again what the context's
// policy did not keep; uses up gate and up, reads the other slots that were kept. Without `need_dx`
// (no adapter below this block) dx is left undefined and the products for it are spared.
void BlockBackward(const BlockContext& context,
                   const BlockWeights& weights,
                   const BlockAdapters& adapters,
                   const Saved& saved,
                   const Activation& dx,
                   bool need_dx);

}  // namespace mft
