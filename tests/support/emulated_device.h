// SPDX-License-Identifier: Apache-2.0
// A device that is none: CUDA's kernel bodies (worker/kernels/cuda/*_blocks.h) run by the CPU,
// block after block, sums in the order in which a GPU's threads would add them. Its memory can be
// touched by its kernels and copies alone; a layer that reads or writes it itself ends the test
// with a segmentation fault.
#pragma once

#include "worker/kernels/kernels.h"

namespace mft::testing {

// Products are those of the operands as they are, added in fp32. Threads: one at a time.
const KernelTable& EmulatedKernels(bool bf16);

// The same kernels on any memory, for tests of single kernels.
const KernelTable& EmulatedKernelsOnHostMemory();

}  // namespace mft::testing
