// SPDX-License-Identifier: Apache-2.0
// Included by each row_kernels_*.cc; internal linkage, so that each file keeps the code compiled
// with its own flags.
#pragma once

#include "worker/kernels/dropout_row.h"
#include "worker/kernels/elementwise.h"
#include "worker/kernels/routing_row.h"
#include "worker/kernels/row_kernels.h"
#include "worker/kernels/softmax_row.h"

namespace mft {

static constexpr RowKernels kRowKernels = {
    .rms_norm =
        [](float* y, const float* x, const float* weight, int64_t n, float eps) {
          elementwise::RmsNormRow(y, x, weight, n, eps);
        },
    .rms_norm_backward =
        [](float* dx, const float* dy, const float* x, const float* weight, int64_t n, float eps) {
          elementwise::RmsNormBackwardRow(dx, dy, x, weight, n, eps);
        },
    .rotary =
        [](float* x, const float* table, int64_t heads, int64_t head_dim, float sign) {
          elementwise::RotaryRow(x, table, heads, head_dim, sign);
        },
    .swiglu =
        [](float* act, const float* gate, const float* up, int64_t n) {
          elementwise::SwigluRow(act, gate, up, n);
        },
    .swiglu_backward =
        [](float* d_act, float* gate, float* up, int64_t n) {
          return elementwise::SwigluBackwardRow(d_act, gate, up, n);
        },
    .inverse_rms =
        [](const float* x, int64_t n, float eps) { return elementwise::InverseRms(x, n, eps); },
    .max_of = [](const float* x, int64_t n) { return elementwise::MaxOf(x, n); },
    .dot = [](const float* x, const float* y, int64_t n) { return elementwise::Dot(x, y, n); },
    .exp_row =
        [](float* scores, int64_t n, float scale, float shift) {
          return elementwise::ExpRow(scores, n, scale, shift);
        },
    .attention_backward =
        [](float* scores, float* d_p, int64_t n, float scale, float lse, float delta) {
          elementwise::AttentionBackwardRow(scores, d_p, n, scale, lse, delta);
        },
    .scale = [](float* x, int64_t n, float factor) { elementwise::ScaleRow(x, n, factor); },
    .add = [](float* y, const float* x, int64_t n) { elementwise::AddRow(y, x, n); },
    .widen = [](float* y, const uint16_t* bf16, int64_t n) { elementwise::WidenRow(y, bf16, n); },
    .dropout =
        [](float* y, const float* x, int64_t n, const DropoutRowKey& key, bool add) {
          elementwise::DropoutRow(y, x, n, key, add);
        },
    .fold_softmax =
        [](SoftmaxState& state, float* logits, int64_t n, int64_t target, bool first) {
          return elementwise::FoldSoftmaxRow(state, logits, n, target, first);
        },
    .route =
        [](float* weight, int32_t* chosen, const float* logits, int64_t experts, int64_t k) {
          elementwise::RouteRow(weight, chosen, logits, experts, k);
        },
    .route_backward =
        [](float* d_logits,
           const float* weighted,
           const float* weight,
           const int32_t* chosen,
           int64_t experts,
           int64_t k) {
          elementwise::RouteBackwardRow(d_logits, weighted, weight, chosen, experts, k);
        },
};

}  // namespace mft
