// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/kernels/kernels.h"

namespace mft::cuda {

// KernelTable::gemm by cuBLASLt: operands of one type, fp32 or bf16, y of either, sums in fp32
// (fp32 operands are not rounded to TF32). The algorithm is cuBLASLt's first choice for a shape,
// asked for once. The workspace is allocated with the first product.
void Gemm(View y, View a, View b, KernelTable::Gemm options);

}  // namespace mft::cuda
