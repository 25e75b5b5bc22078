// SPDX-License-Identifier: Apache-2.0
// What an fp8 product needs of its weight (quantise_blocks.h), on the process's device.
#pragma once

#include "worker/kernels/kernels.h"

namespace mft::cuda {

// q' of q, scales too.
void TransposeQuantisedMat(const QuantisedMat& to, const QuantisedMat& from);

}  // namespace mft::cuda
