// SPDX-License-Identifier: Apache-2.0
#include "worker/model/block.h"

#include <array>

#include "worker/model/block_parts.h"
#include "worker/model/mlp.h"

namespace mft {

namespace {
View Inner(View lora_inner, const LoraGroup& group) {
  return lora_inner.Cols(group.inner_offset, group.inner_cols);
}

std::array<Projection, 3> Qkv(const BlockWeights& w,
                              const Activation& q,
                              const Activation& k,
                              const Activation& v) {
  return {{{&w.wq, q}, {&w.wk, k}, {&w.wv, v}}};
}

void Attend(const BlockContext& c, const Saved& s) {
  if (c.cache.empty()) {
    c.kernels.attention(s.attention, s.lse, s.q, s.k, s.v, c.attention);
    return;
  }
  for (const CachedTurn& turn : c.cache) {
    const int64_t earlier = turn.keys.rows - turn.rows;
    c.kernels.copy_rows(turn.keys.Rows(earlier, turn.rows), s.k.Rows(turn.begin, turn.rows));
    c.kernels.copy_rows(turn.values.Rows(earlier, turn.rows), s.v.Rows(turn.begin, turn.rows));
    const std::array<int32_t, 2> cu_q = {0, static_cast<int32_t>(turn.rows)};
    const std::array<int32_t, 2> cu_k = {0, static_cast<int32_t>(turn.keys.rows)};
    AttentionShape shape = c.attention;
    shape.cu_q = cu_q;
    shape.cu_k = cu_k;
    c.kernels.attention(s.attention.Rows(turn.begin, turn.rows),
                        s.lse.Rows(turn.begin, turn.rows),
                        s.q.Rows(turn.begin, turn.rows),
                        turn.keys,
                        turn.values,
                        shape);
  }
}

void ForwardAttention(const BlockContext& c,
                      const BlockWeights& w,
                      const BlockAdapters& lora,
                      const Saved& s) {
  const Activation norm = c.scratch.quantised.For(c.scratch.norm);
  c.kernels.rms_norm(norm, s.input, w.attention_norm, Eps(c));
  LoraForward(c.kernels,
              lora.qkv,
              Inner(s.lora_inner, lora.qkv),
              norm,
              Qkv(w, s.q, s.k, s.v),
              0,
              DropoutAt(c, DropoutSite::kQkv));
  c.kernels.rotary(s.q, c.position, c.rotary_table, c.params.head_dim, false);
  c.kernels.rotary(s.k, c.position, c.rotary_table, c.params.head_dim, false);
  Attend(c, s);
  c.kernels.copy_rows(s.residual, s.input);
  const Projection o{&w.wo, s.residual};
  LoraForward(c.kernels,
              lora.o,
              Inner(s.lora_inner, lora.o),
              c.scratch.quantised.Operand(c.kernels, s.attention),
              {&o, 1},
              1,
              DropoutAt(c, DropoutSite::kO));
}

// The gradients of q, k and v, which attention has left in the scratch, before the rotation:
// operands if they multiply the weights.
std::array<Projection, 3> RotatedBack(const BlockContext& c, const BlockWeights& w, bool multiply) {
  const BlockScratch& s = c.scratch;
  const QuantisedScratch quantised = multiply ? s.quantised : QuantisedScratch();
  const auto [dq, dk, dv] = quantised.For(std::array{s.dq, s.dk, s.dv});
  c.kernels.rotary(dq, c.position, c.rotary_table, c.params.head_dim, true);
  c.kernels.rotary(dk, c.position, c.rotary_table, c.params.head_dim, true);
  if (dv.quantised.present()) {
    c.kernels.quantise_rows(dv);
  }
  return Qkv(w, dq, dk, dv);
}

// dx: gradient of the residual h in, of the block's input out.
void BackwardAttention(const BlockContext& c,
                       const BlockWeights& w,
                       const BlockAdapters& lora,
                       const Saved& s,
                       const Activation& dx,
                       bool need_dx) {
  const BlockScratch& scratch = c.scratch;
  const Projection o{&w.wo, scratch.quantised.Operand(c.kernels, dx)};
  const View d_o = Inner(scratch.d_inner, lora.o);
  LoraBackwardInner(c.kernels, lora.o, d_o, Inner(s.lora_inner, lora.o), {&o, 1});
  LoraBackwardA(c.kernels, lora.o, d_o, s.attention, DropoutAt(c, DropoutSite::kO));
  if (w.grads != nullptr) {
    AddWeightGrad(c.kernels, w.grads->wo, dx.view, s.attention);
  }
  if (!need_dx && lora.qkv.inner_cols == 0) {
    return;
  }
  LoraBackwardInput(
      c.kernels, lora.o, scratch.d_attention, d_o, {&o, 1}, DropoutAt(c, DropoutSite::kO));
  c.kernels.attention_backward({.dq = scratch.dq,
                                .dk = scratch.dk,
                                .dv = scratch.dv,
                                .d_out = scratch.d_attention,
                                .out = s.attention,
                                .lse = s.lse,
                                .q = s.q,
                                .k = s.k,
                                .v = s.v},
                               c.attention);
  const auto qkv = RotatedBack(c, w, need_dx);
  const View d_qkv = Inner(scratch.d_inner, lora.qkv);
  LoraBackwardInner(c.kernels, lora.qkv, d_qkv, Inner(s.lora_inner, lora.qkv), qkv);
  if (lora.qkv.inner_cols > 0 || w.grads != nullptr) {
    c.kernels.rms_norm(scratch.late_norm, s.input, w.attention_norm, Eps(c));
    LoraBackwardA(c.kernels, lora.qkv, d_qkv, scratch.late_norm, DropoutAt(c, DropoutSite::kQkv));
  }
  if (w.grads != nullptr) {
    AddWeightGrad(c.kernels, w.grads->wq, scratch.dq, scratch.late_norm);
    AddWeightGrad(c.kernels, w.grads->wk, scratch.dk, scratch.late_norm);
    AddWeightGrad(c.kernels, w.grads->wv, scratch.dv, scratch.late_norm);
  }
  if (need_dx) {
    LoraBackwardInput(
        c.kernels, lora.qkv, scratch.late_norm, d_qkv, qkv, DropoutAt(c, DropoutSite::kQkv));
    BackwardNorm(c,
                 dx,
                 scratch.late_norm,
                 s.input,
                 w.attention_norm,
                 w.grads == nullptr ? nullptr : w.grads->attention_norm);
  }
}
}  // namespace

void BlockForward(const BlockContext& context,
                  const BlockWeights& weights,
                  const BlockAdapters& adapters,
                  const Saved& saved,
                  View out) {
  ForwardAttention(context, weights, adapters, saved);
  MlpForward(context, weights, adapters, saved, out);
}

void BlockBackward(const BlockContext& context,
                   const BlockWeights& weights,
                   const BlockAdapters& adapters,
                   const Saved& saved,
                   const Activation& dx,
                   bool need_dx) {
  if (!Keeps(context.policy, ActivationSlot::kQ)) {
    ForwardAttention(context, weights, adapters, saved);
  }
  MlpBackward(context, weights, adapters, saved, dx);
  const bool attention_trains = adapters.qkv.inner_cols > 0 || adapters.o.inner_cols > 0;
  if (need_dx || attention_trains) {
    BackwardAttention(context, weights, adapters, saved, dx, need_dx);
  }
}

}  // namespace mft
