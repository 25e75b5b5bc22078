// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/kernels/kernels.h"

namespace mft::cuda {

// KernelTable::gemm_quantised by cuBLASLt's block-scaled fp8 products (Hopper, CUDA 12.9 and later;
// elsewhere an error that says so): x is quantised first, and for the backward pass the weight's
// bytes are transposed, since fp8 products run along the depth of both operands. Both go into
// memory of this file's own, which grows with the first step.
void GemmQuantised(View y, View x, const QuantisedMat& w, bool transpose_w, float beta);

// Whether the process's device has such products.
bool HasQuantisedGemm();

// The memory for products of at most `rows` rows and weights of at most `widest` rows and columns.
int64_t QuantisedGemmBytes(int64_t rows, int64_t widest);

}  // namespace mft::cuda
