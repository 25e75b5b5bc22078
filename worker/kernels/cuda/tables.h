// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/kernels/kernels.h"

namespace mft::cuda {

// A table whose kernels are blocks (make_table.h), without its name and product.
KernelTable BlockTableF32();
KernelTable BlockTableBF16();

}  // namespace mft::cuda
