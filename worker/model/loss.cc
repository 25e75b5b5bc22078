// SPDX-License-Identifier: Apache-2.0
#include "worker/model/loss.h"

#include <algorithm>
#include <cstring>

namespace mft {

namespace {
constexpr int64_t kChunkElements = int64_t{4} << 20;
constexpr int64_t kMinChunkRows = 32;
constexpr int64_t kMaxChunkRows = 512;
}  // namespace

int64_t LossChunkRows(int64_t vocab_size) {
  const int64_t rows = kChunkElements / vocab_size / kMinChunkRows * kMinChunkRows;
  return std::clamp(rows, kMinChunkRows, kMaxChunkRows);
}

double HeadLoss(const KernelTable& kernels,
                const HeadWeights& head,
                float eps,
                View hidden,
                const LossRows& rows,
                const LossScratch& scratch,
                View d_hidden) {
  const auto total = static_cast<int64_t>(rows.index.size());
  const int64_t chunk = scratch.logits.rows;
  double sum = 0;
  for (int64_t begin = 0; begin < total; begin += chunk) {
    const int64_t count = std::min(chunk, total - begin);
    const int32_t* index = rows.index.data() + begin;
    const int32_t* target = rows.target.data() + begin;
    const float* weight = rows.weight.data() + begin;
    const View x = scratch.hidden.Rows(0, count);
    const View norm = scratch.norm.Rows(0, count);
    const View logits = scratch.logits.Rows(0, count);
    kernels.gather_rows(x, hidden, index);
    HeadLogits(kernels, head, eps, x, norm, logits);
    if (d_hidden.data == nullptr) {
      sum += kernels.cross_entropy_forward(logits, target, weight);
      continue;
    }
    sum += kernels.cross_entropy(logits, target, weight);
    MatMulT(kernels, norm, logits, head.output, 0);
    const View dx = scratch.d_hidden.Rows(0, count);
    std::memset(dx.data, 0, static_cast<size_t>(count * dx.stride) * sizeof(float));
    kernels.rms_norm_backward(dx, norm, x, head.norm, eps);
    kernels.scatter_add_rows(d_hidden, dx, index);
  }
  return sum;
}

void HeadLogits(const KernelTable& kernels,
                const HeadWeights& head,
                float eps,
                View hidden,
                View scratch_norm,
                View logits) {
  kernels.rms_norm(scratch_norm, hidden, head.norm, eps);
  MatMul(kernels, logits, scratch_norm, head.output, 0);
}

}  // namespace mft
