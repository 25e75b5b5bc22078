// SPDX-License-Identifier: Apache-2.0
#include "worker/model/lora_linear.h"

#include <algorithm>

namespace mft {

namespace {
// Calls body(part, y) for each projection with an adapter.
template <typename Body>
void ForParts(const LoraGroup& group, std::span<const Projection> projections, const Body& body) {
  for (size_t i = 0; i < projections.size(); ++i) {
    if (group.parts[i].present()) {
      body(group.parts[i], projections[i].y.view);
    }
  }
}

// All rows at once where nothing is dropped.
template <typename Body>
void ForDropoutChunks(const InputDropout& dropout, int64_t rows, const Body& body) {
  const int64_t size = dropout.active() ? dropout.chunk_rows() : rows;
  for (int64_t begin = 0; begin < rows; begin += size) {
    body(begin, std::min(size, rows - begin));
  }
}
}  // namespace

void LoraInner(const KernelTable& kernels,
               const LoraGroup& group,
               View inner,
               View x,
               const InputDropout& dropout) {
  ForDropoutChunks(dropout, x.rows, [&](int64_t begin, int64_t rows) {
    const View input = dropout.active() ? dropout.Dropped(x, begin, rows) : x;
    kernels.gemm(inner.Rows(begin, rows), input, group.a, {.transpose_b = true});
  });
}

void LoraForward(const KernelTable& kernels,
                 const LoraGroup& group,
                 View inner,
                 const Activation& x,
                 std::span<const Projection> projections,
                 float beta,
                 const InputDropout& dropout) {
  for (const Projection& projection : projections) {
    MatMul(kernels, projection.y.view, x, *projection.weight, beta);
  }
  if (group.inner_cols == 0) {
    return;
  }
  LoraInner(kernels, group, inner, x.view, dropout);
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

void LoraBackwardA(const KernelTable& kernels,
                   const LoraGroup& group,
                   View d_inner,
                   View x,
                   const InputDropout& dropout) {
  if (group.inner_cols == 0) {
    return;
  }
  ForDropoutChunks(dropout, x.rows, [&](int64_t begin, int64_t rows) {
    const View input = dropout.active() ? dropout.Dropped(x, begin, rows) : x;
    kernels.gemm(group.grad_a, d_inner.Rows(begin, rows), input, {.transpose_a = true, .beta = 1});
  });
}

void LoraBackwardInput(const KernelTable& kernels,
                       const LoraGroup& group,
                       View dx,
                       View d_inner,
                       std::span<const Projection> projections,
                       const InputDropout& dropout) {
  float beta = 0;
  for (const Projection& projection : projections) {
    MatMulT(kernels, dx, projection.y, *projection.weight, beta);
    beta = 1;
  }
  if (group.inner_cols == 0) {
    return;
  }
  if (!dropout.active()) {
    kernels.gemm(dx, d_inner, group.a, {.beta = 1});
    return;
  }
  ForDropoutChunks(dropout, dx.rows, [&](int64_t begin, int64_t rows) {
    const View gradient = dropout.Scratch(dx.cols, rows);
    kernels.gemm(gradient, d_inner.Rows(begin, rows), group.a, {});
    dropout.AddDropped(dx, gradient, begin);
  });
}

}  // namespace mft
