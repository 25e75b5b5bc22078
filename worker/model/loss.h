// SPDX-License-Identifier: Apache-2.0
// Final norm, output head and cross entropy on the rows that carry loss, a chunk of rows and
// a block of the vocabulary at a time: logits are never kept.
#pragma once

#include <cstdint>
#include <span>

#include "worker/model/weight_source.h"

namespace mft {

// Rows of a batch whose target carries loss.
struct LossRows {
  std::span<const int32_t> index;   // [R] row of the hidden state, ascending
  std::span<const int32_t> target;  // [R]
  std::span<const float> weight;    // [R] row weights: already normalised, applied once
  // The same where kernels read them, if that is another memory.
  const int32_t* device_index = nullptr;
  const int32_t* device_target = nullptr;
  const float* device_weight = nullptr;

  const int32_t* kernel_index() const { return device_index ? device_index : index.data(); }
  const int32_t* kernel_target() const { return device_target ? device_target : target.data(); }
  const float* kernel_weight() const { return device_weight ? device_weight : weight.data(); }
  // Rows [begin, begin + count).
  LossRows Part(size_t begin, size_t count) const;
};

// Letters: C rows of a chunk, D width, B columns of a block of the vocabulary.
struct LossScratch {
  View hidden;                    // [C, D] gathered rows
  View norm;                      // [C, D] normed; then gradients of the rows
  View sums;                      // [C, D] gradients of the norm
  View logits;                    // [C, B]
  SoftmaxState* state = nullptr;  // [C]
  View factors;                   // [2, C] fp32
  double* sum = nullptr;          // in the kernels' memory: what the calls below add to
};

// Adds the sum of weight * cross entropy (fp64) of the final residual stream `hidden` [T, D] to
// *scratch.sum.
void HeadLoss(const KernelTable& kernels,
              const HeadWeights& head,
              float eps,
              View hidden,
              const LossRows& rows,
              const LossScratch& scratch);

// The same, and replaces `hidden` by the gradient of that sum, and adds those of the head's own
// weights where they are trained (HeadWeights::grads): nothing needs the stream afterwards,
// and [T, D] are a block's whole keep where blocks are recomputed.
void HeadLossBackward(const KernelTable& kernels,
                      const HeadWeights& head,
                      float eps,
                      View hidden,
                      const LossRows& rows,
                      const LossScratch& scratch);

// logits [R, V] of the given rows of `hidden`.
void HeadLogits(const KernelTable& kernels,
                const HeadWeights& head,
                float eps,
                View hidden,
                View scratch_norm,
                View logits);

}  // namespace mft
