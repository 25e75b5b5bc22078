// SPDX-License-Identifier: Apache-2.0
#include "worker/model/lora_linear.h"

namespace mft {

namespace {
// Calls body(part, y) for each projection with an adapter.
template <typename Body>
void ForParts(const LoraGroup& group, std::span<const Projection> projections, const Body& body) {
  for (size_t i = 0; i < projections.size(); ++i) {
    if (group.parts[i].present()) {
      body(group.parts[i], projections[i].y);
    }
  }
}
}  // namespace

void LoraForward(const KernelTable& kernels,
                 const LoraGroup& group,
                 View inner,
                 View x,
                 std::span<const Projection> projections,
                 float beta) {
  for (const Projection& projection : projections) {
    MatMul(kernels, projection.y, x, *projection.weight, beta);
  }
  if (group.inner_cols == 0) {
    return;
  }
  kernels.gemm(inner, x, group.a, {.transpose_b = true});
  ForParts(group, projections, [&](const LoraPart& part, View y) {
    kernels.gemm(y,
                 inner.Cols(part.inner_col, group.rank),
                 part.b,
                 {.transpose_b = true, .alpha = group.scale, .beta = 1});
  });
}

void LoraBackwardInner(const KernelTable& kernels,
                       const LoraGroup& group,
                       View d_inner,
                       View inner,
                       std::span<const Projection> projections) {
  ForParts(group, projections, [&](const LoraPart& part, View dy) {
    kernels.gemm(d_inner.Cols(part.inner_col, group.rank), dy, part.b, {.alpha = group.scale});
    kernels.gemm(part.grad_b,
                 dy,
                 inner.Cols(part.inner_col, group.rank),
                 {.transpose_a = true, .alpha = group.scale, .beta = 1});
  });
}

void LoraBackwardA(const KernelTable& kernels, const LoraGroup& group, View d_inner, View x) {
  if (group.inner_cols > 0) {
    kernels.gemm(group.grad_a, d_inner, x, {.transpose_a = true, .beta = 1});
  }
}

void LoraBackwardInput(const KernelTable& kernels,
                       const LoraGroup& group,
                       View dx,
                       View d_inner,
                       std::span<const Projection> projections) {
  float beta = 0;
  for (const Projection& projection : projections) {
    MatMulT(kernels, dx, projection.y, *projection.weight, beta);
    beta = 1;
  }
  if (group.inner_cols > 0) {
    kernels.gemm(dx, d_inner, group.a, {.beta = 1});
  }
}

}  // namespace mft
