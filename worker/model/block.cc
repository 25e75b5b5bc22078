// SPDX-License-Identifier: Apache-2.0
#include "worker/model/block.h"

#include <array>
#include <cstring>

namespace mft {

namespace {
View Inner(View lora_inner, const LoraGroup& group) {
  return lora_inner.Cols(group.inner_offset, group.inner_cols);
}

float Eps(const BlockContext& c) {
  return static_cast<float>(c.params.norm_eps);
}

void Copy(View to, View from) {
  for (int64_t i = 0; i < from.rows; ++i) {
    std::memcpy(to.row(i), from.row(i), static_cast<size_t>(from.cols) * sizeof(float));
  }
}

std::array<Projection, 3> Qkv(const BlockWeights& w, View q, View k, View v) {
  return {{{&w.wq, q}, {&w.wk, k}, {&w.wv, v}}};
}

void ForwardAttention(const BlockContext& c,
                      const BlockWeights& w,
                      const BlockAdapters& lora,
                      const Saved& s,
                      View keys,
                      View values) {
  const View norm = c.scratch.norm;
  c.kernels.rms_norm(norm, s.input, w.attention_norm, Eps(c));
  LoraForward(c.kernels, lora.qkv, Inner(s.lora_inner, lora.qkv), norm, Qkv(w, s.q, s.k, s.v), 0);
  c.kernels.rotary(s.q, c.position, c.rotary_table, c.params.head_dim, false);
  c.kernels.rotary(s.k, c.position, c.rotary_table, c.params.head_dim, false);
  c.kernels.attention(s.attention, s.lse, s.q, keys, values, c.attention);
  Copy(s.residual, s.input);
  const Projection o{&w.wo, s.residual};
  LoraForward(c.kernels, lora.o, Inner(s.lora_inner, lora.o), s.attention, {&o, 1}, 1);
}

void ForwardGateUp(const BlockContext& c,
                   const BlockWeights& w,
                   const BlockAdapters& lora,
                   const Saved& s) {
  c.kernels.rms_norm(c.scratch.norm, s.residual, w.ffn_norm, Eps(c));
  const std::array<Projection, 2> gate_up = {{{&w.w1, s.gate}, {&w.w3, s.up}}};
  LoraForward(
      c.kernels, lora.gate_up, Inner(s.lora_inner, lora.gate_up), c.scratch.norm, gate_up, 0);
}

void ForwardDown(const BlockContext& c,
                 const BlockWeights& w,
                 const BlockAdapters& lora,
                 const Saved& s,
                 View out) {
  c.kernels.swiglu(c.scratch.act, s.gate, s.up);
  Copy(out, s.residual);
  const Projection down{&w.w2, out};
  LoraForward(c.kernels, lora.down, Inner(s.lora_inner, lora.down), c.scratch.act, {&down, 1}, 1);
}

// dx: gradient of the block's output in, of the residual h out.
void BackwardMlp(const BlockContext& c,
                 const BlockWeights& w,
                 const BlockAdapters& lora,
                 const Saved& s,
                 View dx) {
  const BlockScratch& scratch = c.scratch;
  const Projection down{&w.w2, dx};
  const View d_down = Inner(scratch.d_inner, lora.down);
  LoraBackwardInner(c.kernels, lora.down, d_down, Inner(s.lora_inner, lora.down), {&down, 1});
  LoraBackwardInput(c.kernels, lora.down, scratch.act, d_down, {&down, 1});
  c.kernels.swiglu_backward(
      scratch.act, s.gate, s.up);  // act holds act again, gate and up their gradients
  LoraBackwardA(c.kernels, lora.down, d_down, scratch.act);

  const std::array<Projection, 2> gate_up = {{{&w.w1, s.gate}, {&w.w3, s.up}}};
  const View d_inner = Inner(scratch.d_inner, lora.gate_up);
  LoraBackwardInner(c.kernels, lora.gate_up, d_inner, Inner(s.lora_inner, lora.gate_up), gate_up);
  if (lora.gate_up.inner_cols > 0) {
    c.kernels.rms_norm(scratch.norm, s.residual, w.ffn_norm, Eps(c));
    LoraBackwardA(c.kernels, lora.gate_up, d_inner, scratch.norm);
  }
  LoraBackwardInput(c.kernels, lora.gate_up, scratch.d_norm, d_inner, gate_up);
  c.kernels.rms_norm_backward(dx, scratch.d_norm, s.residual, w.ffn_norm, Eps(c));
}

// dx: gradient of the residual h in, of the block's input out.
void BackwardAttention(const BlockContext& c,
                       const BlockWeights& w,
                       const BlockAdapters& lora,
                       const Saved& s,
                       View dx,
                       bool need_dx) {
  const BlockScratch& scratch = c.scratch;
  const Projection o{&w.wo, dx};
  const View d_o = Inner(scratch.d_inner, lora.o);
  LoraBackwardInner(c.kernels, lora.o, d_o, Inner(s.lora_inner, lora.o), {&o, 1});
  LoraBackwardA(c.kernels, lora.o, d_o, s.attention);
  if (!need_dx && lora.qkv.inner_cols == 0) {
    return;
  }
  LoraBackwardInput(c.kernels, lora.o, scratch.d_attention, d_o, {&o, 1});
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
  c.kernels.rotary(scratch.dq, c.position, c.rotary_table, c.params.head_dim, true);
  c.kernels.rotary(scratch.dk, c.position, c.rotary_table, c.params.head_dim, true);
  const auto qkv = Qkv(w, scratch.dq, scratch.dk, scratch.dv);
  const View d_qkv = Inner(scratch.d_inner, lora.qkv);
  LoraBackwardInner(c.kernels, lora.qkv, d_qkv, Inner(s.lora_inner, lora.qkv), qkv);
  if (lora.qkv.inner_cols > 0) {
    c.kernels.rms_norm(scratch.norm, s.input, w.attention_norm, Eps(c));
    LoraBackwardA(c.kernels, lora.qkv, d_qkv, scratch.norm);
  }
  if (need_dx) {
    LoraBackwardInput(c.kernels, lora.qkv, scratch.d_norm, d_qkv, qkv);
    c.kernels.rms_norm_backward(dx, scratch.d_norm, s.input, w.attention_norm, Eps(c));
  }
}
}  // namespace

void BlockForward(const BlockContext& context,
                  const BlockWeights& weights,
                  const BlockAdapters& adapters,
                  const Saved& saved,
                  View out) {
  BlockForwardCached(context, weights, adapters, saved, {saved.k, saved.v}, out);
}

void BlockForwardCached(const BlockContext& context,
                        const BlockWeights& weights,
                        const BlockAdapters& adapters,
                        const Saved& saved,
                        const View (&keys_values)[2],
                        View out) {
  ForwardAttention(context, weights, adapters, saved, keys_values[0], keys_values[1]);
  ForwardGateUp(context, weights, adapters, saved);
  ForwardDown(context, weights, adapters, saved, out);
}

void BlockRecompute(const BlockContext& context,
                    const BlockWeights& weights,
                    const BlockAdapters& adapters,
                    const Saved& saved,
                    RecomputePolicy policy) {
  switch (policy) {
    case RecomputePolicy::kNothing:
      return;
    case RecomputePolicy::kBlock:
      ForwardAttention(context, weights, adapters, saved, saved.k, saved.v);
      break;
    case RecomputePolicy::kMlp:
      break;
  }
  ForwardGateUp(context, weights, adapters, saved);
  if (policy == RecomputePolicy::kBlock && adapters.down.inner_cols > 0) {
    context.kernels.swiglu(context.scratch.act, saved.gate, saved.up);
    context.kernels.gemm(Inner(saved.lora_inner, adapters.down),
                         context.scratch.act,
                         adapters.down.a,
                         {.transpose_b = true});
  }
}

void BlockBackward(const BlockContext& context,
                   const BlockWeights& weights,
                   const BlockAdapters& adapters,
                   const Saved& saved,
                   View dx,
                   bool need_dx) {
  BackwardMlp(context, weights, adapters, saved, dx);
  const bool attention_trains = adapters.qkv.inner_cols > 0 || adapters.o.inner_cols > 0;
  if (need_dx || attention_trains) {
    BackwardAttention(context, weights, adapters, saved, dx, need_dx);
  }
}

}  // namespace mft
