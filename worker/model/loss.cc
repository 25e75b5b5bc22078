// SPDX-License-Identifier: Apache-2.0
#include "worker/model/loss.h"

#include <algorithm>
#include <cstring>

namespace mft {

namespace {
constexpr int64_t kChunkElements = int64_t{4} << 20;
constexpr int64_t kMinChunkRows = 32;
constexpr int64_t kMaxChunkRows = 512;

void Zero(View view) {
  for (int64_t i = 0; i < view.rows; ++i) {
    std::memset(view.row(i), 0, static_cast<size_t>(view.cols) * sizeof(float));
  }
}

// Calls body(scratch of as many rows, rows of the chunk) with the chunk's hidden rows gathered.
template <typename Body>
void ForChunks(const KernelTable& kernels,
               View hidden,
               const LossRows& rows,
               const LossScratch& scratch,
               const Body& body) {
  const size_t size = static_cast<size_t>(scratch.logits.rows);
  for (size_t begin = 0; begin < rows.index.size(); begin += size) {
    const size_t count = std::min(size, rows.index.size() - begin);
    const auto chunk_rows = static_cast<int64_t>(count);
    const LossScratch chunk{.hidden = scratch.hidden.Rows(0, chunk_rows),
                            .norm = scratch.norm.Rows(0, chunk_rows),
                            .d_hidden = scratch.d_hidden.Rows(0, chunk_rows),
                            .logits = scratch.logits.Rows(0, chunk_rows)};
    kernels.gather_rows(chunk.hidden, hidden, rows.index.data() + begin);
    body(chunk,
         LossRows{rows.index.subspan(begin, count),
                  rows.target.subspan(begin, count),
                  rows.weight.subspan(begin, count)});
  }
}
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
                const LossScratch& scratch) {
  double sum = 0;
  ForChunks(kernels, hidden, rows, scratch, [&](const LossScratch& s, const LossRows& chunk) {
    HeadLogits(kernels, head, eps, s.hidden, s.norm, s.logits);
    sum += kernels.cross_entropy_forward(s.logits, chunk.target.data(), chunk.weight.data());
  });
  return sum;
}

double HeadLossBackward(const KernelTable& kernels,
                        const HeadWeights& head,
                        float eps,
                        View hidden,
                        const LossRows& rows,
                        const LossScratch& scratch) {
  double sum = 0;
  int64_t done = 0;  // rows of `hidden` that are gradients, or zero until theirs is added
  ForChunks(kernels, hidden, rows, scratch, [&](const LossScratch& s, const LossRows& chunk) {
    const int64_t end = chunk.index.back() + 1;
    Zero(hidden.Rows(done, end - done));  // this chunk's rows are gathered, those between unused
    done = end;
    HeadLogits(kernels, head, eps, s.hidden, s.norm, s.logits);
    sum += kernels.cross_entropy(s.logits, chunk.target.data(), chunk.weight.data());
    MatMulT(kernels, s.norm, s.logits, head.output, 0);
    Zero(s.d_hidden);
    kernels.rms_norm_backward(s.d_hidden, s.norm, s.hidden, head.norm, eps);
    kernels.scatter_add_rows(hidden, s.d_hidden, chunk.index.data());
  });
  Zero(hidden.Rows(done, hidden.rows - done));
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
