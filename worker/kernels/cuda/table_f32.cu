// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/cuda/cuda_block.h"
#include "worker/kernels/cuda/make_table.h"
#include "worker/kernels/cuda/tables.h"

namespace mft::cuda {

KernelTable BlockTableF32() {
  return MakeTable<CudaDevice, float>(Memory());
}

}  // namespace mft::cuda
