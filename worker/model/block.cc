// SPDX-License-Identifier: Apache-2.0
#include "worker/model/block.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace mft {

namespace {
View Inner(View lora_inner, const LoraGroup& group) {
  return lora_inner.Cols(group.inner_offset, group.inner_cols);
}

InputDropout DropoutAt(const BlockContext& c, DropoutSite site, int64_t begin = 0) {
  return {c.kernels, c.dropout, site, begin};
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
  LoraForward(c.kernels,
              lora.qkv,
              Inner(s.lora_inner, lora.qkv),
              norm,
              Qkv(w, s.q, s.k, s.v),
              0,
              DropoutAt(c, DropoutSite::kQkv));
  c.kernels.rotary(s.q, c.position, c.rotary_table, c.params.head_dim, false);
  c.kernels.rotary(s.k, c.position, c.rotary_table, c.params.head_dim, false);
  c.kernels.attention(s.attention, s.lse, s.q, keys, values, c.attention);
  Copy(s.residual, s.input);
  const Projection o{&w.wo, s.residual};
  LoraForward(c.kernels,
              lora.o,
              Inner(s.lora_inner, lora.o),
              s.attention,
              {&o, 1},
              1,
              DropoutAt(c, DropoutSite::kO));
}

// The MLP works on a few rows at a time, so that what it computes but does not keep stays small.
struct MlpPiece {
  int64_t begin = 0;
  View residual, gate, up, lora_inner;  // [M, ..]
  View norm, act, d_inner;              // scratch; norm becomes its gradient
};

template <typename Body>
void ForMlpPieces(const BlockContext& c, const Saved& s, const Body& body) {
  const BlockScratch& scratch = c.scratch;
  const int64_t size = scratch.act.rows;
  for (int64_t begin = 0; begin < s.residual.rows; begin += size) {
    const int64_t rows = std::min(size, s.residual.rows - begin);
    const auto slot = [&](ActivationSlot which, View view) {
      return view.Rows(Keeps(c.policy, which) ? begin : 0, rows);
    };
    const bool has_backward = scratch.d_inner.data != nullptr;
    body(MlpPiece{.begin = begin,
                  .residual = s.residual.Rows(begin, rows),
                  .gate = slot(ActivationSlot::kGate, s.gate),
                  .up = slot(ActivationSlot::kUp, s.up),
                  .lora_inner = s.lora_inner.Rows(begin, rows),
                  .norm = scratch.norm.Rows(0, rows),
                  .act = scratch.act.Rows(0, rows),
                  .d_inner = has_backward ? scratch.d_inner.Rows(0, rows) : View{}});
  }
}

void ForwardGateUp(const BlockContext& c,
                   const BlockWeights& w,
                   const BlockAdapters& lora,
                   const MlpPiece& p) {
  c.kernels.rms_norm(p.norm, p.residual, w.ffn_norm, Eps(c));
  const std::array<Projection, 2> gate_up = {{{&w.w1, p.gate}, {&w.w3, p.up}}};
  LoraForward(c.kernels,
              lora.gate_up,
              Inner(p.lora_inner, lora.gate_up),
              p.norm,
              gate_up,
              0,
              DropoutAt(c, DropoutSite::kGateUp, p.begin));
}

void ForwardMlp(const BlockContext& c,
                const BlockWeights& w,
                const BlockAdapters& lora,
                const Saved& s,
                View out) {
  ForMlpPieces(c, s, [&](const MlpPiece& p) {
    ForwardGateUp(c, w, lora, p);
    c.kernels.swiglu(p.act, p.gate, p.up);
    const View y = out.Rows(p.begin, p.act.rows);
    Copy(y, p.residual);
    const Projection down{&w.w2, y};
    LoraForward(c.kernels,
                lora.down,
                Inner(p.lora_inner, lora.down),
                p.act,
                {&down, 1},
                1,
                DropoutAt(c, DropoutSite::kDown, p.begin));
  });
}

// What the policy did not keep of the MLP's slots; with kBlock that is x A of w2, too.
void RecomputeMlp(const BlockContext& c,
                  const BlockWeights& w,
                  const BlockAdapters& lora,
                  const MlpPiece& p) {
  if (!Keeps(c.policy, ActivationSlot::kGate)) {
    ForwardGateUp(c, w, lora, p);
  }
  if (!Keeps(c.policy, ActivationSlot::kLoraInner) && lora.down.inner_cols > 0) {
    c.kernels.swiglu(p.act, p.gate, p.up);
    LoraInner(c.kernels,
              lora.down,
              Inner(p.lora_inner, lora.down),
              p.act,
              DropoutAt(c, DropoutSite::kDown, p.begin));
  }
}

// dx: gradient of the block's output in, of the residual h out.
void BackwardMlp(const BlockContext& c,
                 const BlockWeights& w,
                 const BlockAdapters& lora,
                 const MlpPiece& p,
                 View dx) {
  const Projection down{&w.w2, dx};
  const View d_down = Inner(p.d_inner, lora.down);
  LoraBackwardInner(c.kernels, lora.down, d_down, Inner(p.lora_inner, lora.down), {&down, 1});
  LoraBackwardInput(
      c.kernels, lora.down, p.act, d_down, {&down, 1}, DropoutAt(c, DropoutSite::kDown, p.begin));
  c.kernels.swiglu_backward(p.act, p.gate, p.up);  // act holds act again, gate and up gradients
  LoraBackwardA(c.kernels, lora.down, d_down, p.act, DropoutAt(c, DropoutSite::kDown, p.begin));

  const std::array<Projection, 2> gate_up = {{{&w.w1, p.gate}, {&w.w3, p.up}}};
  const View d_inner = Inner(p.d_inner, lora.gate_up);
  LoraBackwardInner(c.kernels, lora.gate_up, d_inner, Inner(p.lora_inner, lora.gate_up), gate_up);
  if (lora.gate_up.inner_cols > 0) {
    c.kernels.rms_norm(p.norm, p.residual, w.ffn_norm, Eps(c));
    LoraBackwardA(
        c.kernels, lora.gate_up, d_inner, p.norm, DropoutAt(c, DropoutSite::kGateUp, p.begin));
  }
  LoraBackwardInput(c.kernels,
                    lora.gate_up,
                    p.norm,
                    d_inner,
                    gate_up,
                    DropoutAt(c, DropoutSite::kGateUp, p.begin));
  c.kernels.rms_norm_backward(dx, p.norm, p.residual, w.ffn_norm, Eps(c));
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
  LoraBackwardA(c.kernels, lora.o, d_o, s.attention, DropoutAt(c, DropoutSite::kO));
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
  c.kernels.rotary(scratch.dq, c.position, c.rotary_table, c.params.head_dim, true);
  c.kernels.rotary(scratch.dk, c.position, c.rotary_table, c.params.head_dim, true);
  const auto qkv = Qkv(w, scratch.dq, scratch.dk, scratch.dv);
  const View d_qkv = Inner(scratch.d_inner, lora.qkv);
  LoraBackwardInner(c.kernels, lora.qkv, d_qkv, Inner(s.lora_inner, lora.qkv), qkv);
  if (lora.qkv.inner_cols > 0) {
    c.kernels.rms_norm(scratch.late_norm, s.input, w.attention_norm, Eps(c));
    LoraBackwardA(c.kernels, lora.qkv, d_qkv, scratch.late_norm, DropoutAt(c, DropoutSite::kQkv));
  }
  if (need_dx) {
    LoraBackwardInput(
        c.kernels, lora.qkv, scratch.late_norm, d_qkv, qkv, DropoutAt(c, DropoutSite::kQkv));
    c.kernels.rms_norm_backward(dx, scratch.late_norm, s.input, w.attention_norm, Eps(c));
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
  ForwardMlp(context, weights, adapters, saved, out);
}

void BlockBackward(const BlockContext& context,
                   const BlockWeights& weights,
                   const BlockAdapters& adapters,
                   const Saved& saved,
                   View dx,
                   bool need_dx) {
  if (!Keeps(context.policy, ActivationSlot::kQ)) {
    ForwardAttention(context, weights, adapters, saved, saved.k, saved.v);
  }
  ForMlpPieces(context, saved, [&](const MlpPiece& piece) {
    RecomputeMlp(context, weights, adapters, piece);
    BackwardMlp(context, weights, adapters, piece, dx.Rows(piece.begin, piece.act.rows));
  });
  const bool attention_trains = adapters.qkv.inner_cols > 0 || adapters.o.inner_cols > 0;
  if (need_dx || attention_trains) {
    BackwardAttention(context, weights, adapters, saved, dx, need_dx);
  }
}

}  // namespace mft
