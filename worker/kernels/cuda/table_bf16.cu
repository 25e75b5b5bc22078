// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/cuda/cuda_block.h"
#include "worker/kernels/cuda/make_table.h"
#include "worker/kernels/cuda/tables.h"

namespace mft::cuda {

KernelTable BlockTableBF16() {
  return MakeTable<CudaDevice, Bf16>(Memory());
}

}  // namespace mft::cuda
