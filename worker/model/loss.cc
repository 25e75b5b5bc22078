// SPDX-License-Identifier: Apache-2.0
#include "worker/model/loss.h"

#include <algorithm>

namespace mft {

namespace {
// Calls body(scratch of as many rows, rows of the chunk) with the chunk's hidden rows gathered.
template <typename Body>
void ForChunks(const KernelTable& kernels,
               View hidden,
               const LossRows& rows,
               const LossScratch& scratch,
               const Body& body) {
  const auto size = static_cast<size_t>(scratch.logits.rows);
  for (size_t begin = 0; begin < rows.index.size(); begin += size) {
    const size_t count = std::min(size, rows.index.size() - begin);
    const auto chunk_rows = static_cast<int64_t>(count);
    const LossScratch chunk{.hidden = scratch.hidden.Rows(0, chunk_rows),
                            .norm = scratch.norm.Rows(0, chunk_rows),
                            .sums = scratch.sums.Rows(0, chunk_rows),
                            .logits = scratch.logits.Rows(0, chunk_rows),
                            .state = scratch.state,
                            .factors = scratch.factors,
                            .sum = scratch.sum};
    const LossRows part = rows.Part(begin, count);
    kernels.gather_rows(chunk.hidden, hidden, part.kernel_index());
    body(chunk, part);
  }
}

// Adds the sum of row_weight * cross entropy of the chunk in scratch.hidden; with `gradient`
// scratch.sums becomes the gradient of the norm. One pass over the output matrix: a block of it is
// near for both products.
void FoldVocabulary(const KernelTable& kernels,
                    const HeadWeights& head,
                    float eps,
                    const LossScratch& s,
                    const LossRows& rows,
                    bool gradient) {
  kernels.rms_norm(s.norm, s.hidden, head.norm, eps);
  for (int64_t first = 0; first < head.output.out; first += s.logits.cols) {
    const int64_t count = std::min(s.logits.cols, head.output.out - first);
    const FrozenMat block = head.output.Rows(first, count);
    const View logits = s.logits.Cols(0, count);
    MatMul(kernels, logits, s.norm, block, 0);
    const bool has_sums = gradient && first > 0;
    kernels.fold_softmax(s.state, logits, first, rows.kernel_target(), has_sums ? s.sums : View{});
    if (gradient) {
      MatMulT(kernels, s.sums, logits, block, has_sums ? 1 : 0);
    }
  }
  float* exp_factor = s.factors.row(0);
  float* target_factor = s.factors.row(1);
  kernels.cross_entropy(
      s.state, s.norm.rows, rows.kernel_weight(), exp_factor, target_factor, s.sum);
  if (gradient) {
    kernels.scale_rows(s.sums, exp_factor);
    kernels.gather_rows(s.norm, head.output.data, rows.kernel_target());
    kernels.scale_rows(s.norm, target_factor);
    kernels.add(s.sums, s.norm);
  }
}

// The same of a head that is trained: its gradient needs the softmax itself, so that the logits are
// computed again once their sums are known.
void TrainVocabulary(const KernelTable& kernels,
                     const HeadWeights& head,
                     float eps,
                     const LossScratch& s,
                     const LossRows& rows) {
  FoldVocabulary(kernels, head, eps, s, rows, false);
  for (int64_t first = 0; first < head.output.out; first += s.logits.cols) {
    const int64_t count = std::min(s.logits.cols, head.output.out - first);
    const FrozenMat block = head.output.Rows(first, count);
    const View logits = s.logits.Cols(0, count);
    MatMul(kernels, logits, s.norm, block, 0);
    kernels.softmax_gradient(
        logits, s.state, first, rows.kernel_target(), s.factors.row(0), s.factors.row(1));
    MatMulT(kernels, s.sums, logits, block, first > 0 ? 1 : 0);
    AddWeightGrad(kernels, head.grads->output.Rows(first, count), logits, s.norm);
  }
  kernels.rms_norm_weight_gradient(head.grads->norm, s.sums, s.hidden, eps);
}
}  // namespace

LossRows LossRows::Part(size_t begin, size_t count) const {
  return {.index = index.subspan(begin, count),
          .target = target.subspan(begin, count),
          .weight = weight.subspan(begin, count),
          .device_index = device_index ? device_index + begin : nullptr,
          .device_target = device_target ? device_target + begin : nullptr,
          .device_weight = device_weight ? device_weight + begin : nullptr};
}

void HeadLoss(const KernelTable& kernels,
              const HeadWeights& head,
              float eps,
              View hidden,
              const LossRows& rows,
              const LossScratch& scratch) {
  ForChunks(kernels, hidden, rows, scratch, [&](const LossScratch& s, const LossRows& chunk) {
    FoldVocabulary(kernels, head, eps, s, chunk, false);
  });
}

void HeadLossBackward(const KernelTable& kernels,
                      const HeadWeights& head,
                      float eps,
                      View hidden,
                      const LossRows& rows,
                      const LossScratch& scratch) {
  int64_t done = 0;  // rows of `hidden` that are gradients, or zero until theirs is added
  ForChunks(kernels, hidden, rows, scratch, [&](const LossScratch& s, const LossRows& chunk) {
    const int64_t end = chunk.index.back() + 1;
    kernels.zero(
        hidden.Rows(done, end - done));  // this chunk's rows are gathered, those between unused
    done = end;
    if (head.grads != nullptr) {
      TrainVocabulary(kernels, head, eps, s, chunk);
    } else {
      FoldVocabulary(kernels, head, eps, s, chunk, true);
    }
    kernels.zero(s.norm);
    kernels.rms_norm_backward(s.norm, s.sums, s.hidden, head.norm, eps);
    kernels.scatter_add_rows(hidden, s.norm, chunk.kernel_index());
  });
  kernels.zero(hidden.Rows(done, hidden.rows - done));
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
