// SPDX-License-Identifier: Apache-2.0
#include "worker/model/mlp.h"

#include <algorithm>

#include "worker/model/block_parts.h"
#include "worker/model/ffn.h"
#include "worker/model/moe.h"

namespace mft {

namespace {
template <typename Body>
void ForMlpPieces(const BlockContext& c, const Saved& s, const Body& body) {
  const BlockScratch& scratch = c.scratch;
  const int64_t visits = ExpertsPerToken(c.params);
  const int64_t size = scratch.act.rows;
  for (int64_t begin = 0; begin < s.residual.rows; begin += size) {
    const int64_t rows = std::min(size, s.residual.rows - begin);
    const auto slot = [&](ActivationSlot which, View view) {
      return Keeps(c.policy, which) ? view.Rows(begin * visits, rows * visits) : view.Rows(0, rows);
    };
    const bool has_backward = scratch.d_inner.data != nullptr;
    body(MlpPiece{.begin = begin,
                  .residual = s.residual.Rows(begin, rows),
                  .gate = slot(ActivationSlot::kGate, s.gate),
                  .up = slot(ActivationSlot::kUp, s.up),
                  .lora_inner = s.lora_inner.Rows(begin, rows),
                  .expert_inner = slot(ActivationSlot::kLoraInner, s.expert_inner),
                  .norm = scratch.norm.Rows(0, rows),
                  .act = scratch.act.Rows(0, rows),
                  .d_inner = has_backward ? scratch.d_inner.Rows(0, rows) : View{}});
  }
}

Ffn DenseFfn(const BlockContext& c,
             const BlockWeights& w,
             const BlockAdapters& lora,
             const MlpPiece& p) {
  return {
      .kernels = c.kernels,
      .w1 = w.w1,
      .w2 = w.w2,
      .w3 = w.w3,
      .lora = lora.ffn,
      .gate = p.gate,
      .up = p.up,
      .act = p.act,
      .inner = p.lora_inner,
      .d_inner = p.d_inner,
      .quantised = c.scratch.quantised,
      .drop_gate_up = DropoutAt(c, DropoutSite::kGateUp, p.begin),
      .drop_down = DropoutAt(c, DropoutSite::kDown, p.begin),
      .grads = w.grads == nullptr ? FfnGrads{} : FfnGrads{w.grads->w1, w.grads->w2, w.grads->w3}};
}

void NormGateUp(const BlockContext& c, const BlockWeights& w, const MlpPiece& p, const Ffn& ffn) {
  const Activation norm = c.scratch.quantised.For(p.norm);
  c.kernels.rms_norm(norm, p.residual, w.ffn_norm, Eps(c));
  FfnGateUp(ffn, norm);
}

// `out` holds the residual.
void ForwardDense(const BlockContext& c,
                  const BlockWeights& w,
                  const BlockAdapters& lora,
                  const MlpPiece& p,
                  View out) {
  const Ffn ffn = DenseFfn(c, w, lora, p);
  NormGateUp(c, w, p, ffn);
  FfnDown(ffn, out, 1);
}

void BackwardDense(const BlockContext& c,
                   const BlockWeights& w,
                   const BlockAdapters& lora,
                   const MlpPiece& p,
                   const Activation& dx) {
  const Ffn ffn = DenseFfn(c, w, lora, p);
  if (!Keeps(c.policy, ActivationSlot::kGate)) {
    NormGateUp(c, w, p, ffn);
  }
  if (!Keeps(c.policy, ActivationSlot::kLoraInner)) {
    FfnDownInner(ffn);
  }
  FfnBackwardDown(ffn, dx, nullptr);
  if (ffn.ReadsInput()) {
    c.kernels.rms_norm(p.norm, p.residual, w.ffn_norm, Eps(c));
  }
  FfnBackwardInput(ffn, p.norm, p.norm);
  BackwardNorm(
      c, dx, p.norm, p.residual, w.ffn_norm, w.grads == nullptr ? nullptr : w.grads->ffn_norm);
}
}  // namespace

void MlpForward(const BlockContext& context,
                const BlockWeights& weights,
                const BlockAdapters& adapters,
                const Saved& saved,
                View out) {
  const auto& forward = context.params.moe ? ForwardExperts : ForwardDense;
  ForMlpPieces(context, saved, [&](const MlpPiece& piece) {
    const View y = out.Rows(piece.begin, piece.residual.rows);
    context.kernels.copy_rows(y, piece.residual);
    forward(context, weights, adapters, piece, y);
  });
}

void MlpBackward(const BlockContext& context,
                 const BlockWeights& weights,
                 const BlockAdapters& adapters,
                 const Saved& saved,
                 const Activation& dx) {
  const auto& backward = context.params.moe ? BackwardExperts : BackwardDense;
  ForMlpPieces(context, saved, [&](const MlpPiece& piece) {
    backward(context, weights, adapters, piece, dx.Rows(piece.begin, piece.residual.rows));
  });
}

}  // namespace mft
