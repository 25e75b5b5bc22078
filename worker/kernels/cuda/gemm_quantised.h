// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/kernels/kernels.h"

namespace mft::cuda {

// KernelTable::gemm_quantised by cuBLASLt's block-scaled fp8 products (Hopper, cuBLAS 12.9 and
// later; elsewhere an error that says so). For the backward pass the weight's bytes are transposed,
// since fp8 products run along the depth of both operands, into memory of this file's own, which
// grows with the first step.
void GemmQuantised(
    View y, const QuantisedRows& x, const QuantisedMat& w, bool transpose_w, float beta);

// Whether the process's device has such products.
bool HasQuantisedGemm();

}  // namespace mft::cuda
