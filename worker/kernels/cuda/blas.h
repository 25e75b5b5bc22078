// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/kernels/kernels.h"

namespace mft::cuda {

// Of operands in e4m3: of a [k / 128, m], a block of 128 elements of a row each; of b
// QuantisedMat::scales. Null: operands have no scales.
struct OperandScales {
  const float* of_a = nullptr;
  const float* of_b = nullptr;
};

// KernelTable::gemm, and its like in fp8 (REQUIRES transpose_b, not transpose_a).
void BlasGemm(View y, View a, View b, const KernelTable::Gemm& options, OperandScales scales);

}  // namespace mft::cuda
