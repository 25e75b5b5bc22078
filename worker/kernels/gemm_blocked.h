// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/kernels/kernels.h"

namespace mft {

// KernelTable::gemm on tiles of AVX-512. MKL has AVX-512 kernels, but takes its AVX2 ones on
// processors that are not Intel's, half as fast where the full width is there (Zen 5, one thread,
// 2048^3: worker/model/README.md). Same bits for any number of threads. Products of few rows, which
// only stream the matrix, go to GemmCpu. Within an OpenMP parallel region the calling thread works
// alone.
void GemmBlocked(View y, View a, View b, KernelTable::Gemm options);

// The same with operands rounded to bf16, for processors with AVX512-BF16: twice the
// multiplications of an instruction. y, and products of few rows, are fp32.
void GemmBlockedBf16(View y, View a, View b, KernelTable::Gemm options);

// The same on the tile registers of AMX (Intel from Sapphire Rapids on): 1024 FLOP a cycle, where
// VDPBF16PS gives no more than fp32 does. A thread's tile registers are set up for the call and
// released at its end, so whatever else uses them (oneDNN, MKL) sets them up again.
// REQUIRES AMX's instructions, and that the kernel has permitted the process to use them.
void GemmBlockedAmx(View y, View a, View b, KernelTable::Gemm options);

}  // namespace mft
