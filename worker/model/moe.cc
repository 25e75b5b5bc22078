// SPDX-License-Identifier: Apache-2.0
#include "worker/model/moe.h"

#include "worker/model/block_parts.h"
#include "worker/model/ffn.h"
#include "worker/model/routing.h"

namespace mft {

namespace {
// Norms, logits, and the choice: fills piece.norm and the context's routing.
void Route(const BlockContext& c, const BlockWeights& w, const MlpPiece& p) {
  Routing& routing = *c.scratch.routing;
  const View logits = c.scratch.router.Rows(0, p.norm.rows);
  c.kernels.rms_norm(p.norm, p.residual, w.ffn_norm, Eps(c));
  MatMul(c.kernels, logits, p.norm, w.router, 0);
  c.kernels.route(routing.Weights(p.norm.rows), routing.chosen(), logits);
  routing.Group(p.norm.rows);
  if (c.dropout.probability > 0) {
    routing.GroupDropout(c.dropout, p.begin);
  }
}

// An expert on its rows.
struct Expert {
  int64_t number = 0;
  int64_t rows = 0;
  const int32_t* index = nullptr;  // [rows] rows of the piece
  const float* weight = nullptr;   // [rows]
  View x;                          // [rows, D] scratch
  const Ffn& ffn;
};

// Calls body(Expert) for each expert that some row chose.
template <typename Body>
void ForExperts(const BlockContext& c,
                const BlockWeights& w,
                const BlockAdapters& lora,
                const MlpPiece& p,
                const Body& body) {
  const Routing& routing = *c.scratch.routing;
  const auto slot = [&](ActivationSlot which, View view, int64_t begin, int64_t rows) {
    return view.Rows(Keeps(c.policy, which) ? begin : 0, rows);
  };
  for (size_t e = 0; e < w.experts.size(); ++e) {
    const auto number = static_cast<int64_t>(e);
    const int64_t rows = routing.count(number);
    const int64_t begin = routing.begin(number);
    if (rows == 0) {
      continue;
    }
    const Dropout dropout = routing.DropoutOf(c.dropout, number);
    const bool has_backward = c.scratch.d_expert_inner.data != nullptr;
    const Ffn ffn{.kernels = c.kernels,
                  .w1 = w.experts[e].w1,
                  .w2 = w.experts[e].w2,
                  .w3 = w.experts[e].w3,
                  .lora = lora.experts[e],
                  .gate = slot(ActivationSlot::kGate, p.gate, begin, rows),
                  .up = slot(ActivationSlot::kUp, p.up, begin, rows),
                  .act = p.act.Rows(0, rows),
                  .inner = slot(ActivationSlot::kLoraInner, p.expert_inner, begin, rows),
                  .d_inner = has_backward ? c.scratch.d_expert_inner.Rows(0, rows) : View{},
                  .drop_gate_up = {c.kernels, dropout, DropoutSite::kGateUp, 0},
                  .drop_down = {c.kernels, dropout, DropoutSite::kDown, 0},
                  .grads = w.grads == nullptr ? FfnGrads{} : w.grads->experts[e]};
    body(Expert{.number = number,
                .rows = rows,
                .index = routing.rows_of(number),
                .weight = routing.weights_of(number),
                .x = c.scratch.expert_rows.Rows(0, rows),
                .ffn = ffn});
  }
}

// The norms of the expert's rows, bit by bit those of the piece: its norm has become a gradient.
void NormAgain(const BlockContext& c, const BlockWeights& w, const MlpPiece& p, const Expert& e) {
  c.kernels.gather_rows(e.x, p.residual, e.index);
  c.kernels.rms_norm(e.x, e.x, w.ffn_norm, Eps(c));
}
}  // namespace

void ForwardExperts(const BlockContext& context,
                    const BlockWeights& weights,
                    const BlockAdapters& adapters,
                    const MlpPiece& piece,
                    View out) {
  const BlockContext& c = context;
  Route(c, weights, piece);
  ForExperts(c, weights, adapters, piece, [&](const Expert& e) {
    c.kernels.gather_rows(e.x, piece.norm, e.index);
    FfnGateUp(e.ffn, e.x);
    FfnDown(e.ffn, e.x, 0);
    c.kernels.scale_rows(e.x, e.weight);
    c.kernels.scatter_add_rows(out, e.x, e.index);
    if (!c.expert_rows.empty()) {
      c.expert_rows[static_cast<size_t>(e.number)] += e.rows;
    }
  });
}

void BackwardExperts(const BlockContext& context,
                     const BlockWeights& weights,
                     const BlockAdapters& adapters,
                     const MlpPiece& piece,
                     const Activation& dx) {
  const BlockContext& c = context;
  Routing& routing = *c.scratch.routing;
  Route(c, weights, piece);
  const View d_norm = piece.norm;
  c.kernels.zero(d_norm);
  ForExperts(c, weights, adapters, piece, [&](const Expert& e) {
    if (!Keeps(c.policy, ActivationSlot::kGate)) {
      NormAgain(c, weights, piece, e);
      FfnGateUp(e.ffn, e.x);
    }
    if (!Keeps(c.policy, ActivationSlot::kLoraInner)) {
      FfnDownInner(e.ffn);
    }
    c.kernels.gather_rows(e.x, dx.view, e.index);
    c.kernels.scale_rows(e.x, e.weight);
    FfnBackwardDown(e.ffn, e.x, routing.weighted_of(e.number));
    if (e.ffn.ReadsInput()) {
      NormAgain(c, weights, piece, e);
    }
    FfnBackwardInput(e.ffn, e.x, e.x);
    c.kernels.scatter_add_rows(d_norm, e.x, e.index);
  });
  const int64_t rows = d_norm.rows;
  const View d_logits = c.scratch.router.Rows(0, rows);
  c.kernels.route_backward(
      d_logits, routing.Weighted(rows), routing.Weights(rows), routing.chosen());
  MatMulT(c.kernels, d_norm, d_logits, weights.router, 1);
  if (weights.grads != nullptr) {
    const View norm = c.scratch.expert_rows.Rows(0, rows);
    c.kernels.rms_norm(norm, piece.residual, weights.ffn_norm, Eps(c));
    AddWeightGrad(c.kernels, weights.grads->router, d_logits, norm);
  }
  BackwardNorm(c,
               dx,
               d_norm,
               piece.residual,
               weights.ffn_norm,
               weights.grads == nullptr ? nullptr : weights.grads->ffn_norm);
}

}  // namespace mft
