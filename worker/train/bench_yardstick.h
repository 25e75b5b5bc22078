// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/kernels/kernels.h"

namespace mft {

// FLOPs a second of the yardstick that a benchmark is measured by: on the CPU LibTorch's own
// product of two matrices, on a device the table's own product of large ones on random values, the
// best of a few.
double YardstickFlopsPerSecond(const KernelTable& kernels, bool bf16);

}  // namespace mft
