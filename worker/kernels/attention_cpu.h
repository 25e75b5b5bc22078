// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/kernels/kernels.h"
#include "worker/kernels/row_kernels.h"

namespace mft {

// What the CPU's attention is made of.
struct AttentionParts {
  const RowKernels& rows;
  void (*gemm)(View y, View a, View b, KernelTable::Gemm options);
};

// KernelTable::attention and attention_backward. Blocked as in FlashAttention-2 (Dao, 2023): scores
// exist for one block of queries and keys at a time, in a scratch buffer per thread that stays in
// the second-level cache. Beats one ATen call per segment by grouped heads (no copies of k and v)
// and by keeping the products of small blocks in the matrix kernel while the softmax runs on the
// block in place.
void AttentionCpu(const AttentionParts& parts,
                  View out,
                  View lse,
                  View q,
                  View k,
                  View v,
                  const AttentionShape& shape);
void AttentionBackwardCpu(const AttentionParts& parts,
                          const KernelTable::AttentionGrad& grad,
                          const AttentionShape& shape);

}  // namespace mft
