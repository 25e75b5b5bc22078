// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/cuda/cuda_block.h"
#include "worker/kernels/cuda/make_table.h"
#include "worker/kernels/cuda/quantise.h"
#include "worker/kernels/cuda/tables.h"

namespace mft::cuda {

KernelTable BlockTableBF16() {
  return MakeTable<CudaDevice, Bf16>(Memory());
}

void TransposeQuantisedMat(const QuantisedMat& to, const QuantisedMat& from) {
  Quantisation<CudaDevice, Bf16>::Transpose(to, from);
}

}  // namespace mft::cuda
