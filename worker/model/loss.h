// SPDX-License-Identifier: Apache-2.0
// Final norm, output head and cross entropy on the rows that carry loss, in chunks: full logits
// never exist.
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
};

// Letters: C rows of a chunk, D width, V vocabulary.
struct LossScratch {
  View hidden;    // [C, D] gathered rows
  View norm;      // [C, D] normed; then gradients of it
  View d_hidden;  // [C, D]
  View logits;    // [C, V]
};

// Rows of a chunk, a multiple of 32: as many as keep the logits within 16 MiB, so that they stay
// near the cache, at least 32.
int64_t LossChunkRows(int64_t vocab_size);

// Returns the sum of weight * cross entropy (fp64) for the final residual stream `hidden` [T, D].
double HeadLoss(const KernelTable& kernels,
                const HeadWeights& head,
                float eps,
                View hidden,
                const LossRows& rows,
                const LossScratch& scratch);

// The same, and replaces `hidden` by the gradient of that sum: nothing needs the stream afterwards,
// and [T, D] are a block's whole keep where blocks are recomputed.
double HeadLossBackward(const KernelTable& kernels,
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
