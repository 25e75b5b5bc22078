// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/kernels/kernels.h"

namespace mft {

// KernelTable::gemm through ATen's mm_out and addmm_out (MKL), into the memory of `y`. Called
// within an OpenMP parallel region it uses the calling thread only.
void GemmCpu(View y, View a, View b, KernelTable::Gemm options);

}  // namespace mft
