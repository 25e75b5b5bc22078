// SPDX-License-Identifier: Apache-2.0
// The gradient's norm and the update, wherever what is trained is.
#pragma once

#include "worker/model/param_store.h"
#include "worker/train/adamw.h"

namespace mft {

// Square root of the sum of squares of the gradient, in fp64; not finite if and only if an element
// is not. Waits for a device.
double GradNorm(ParamStore& trained);

// AdamW on every weight; on a device it also makes the compute copy, and nothing waits.
void UpdateWeights(ParamStore& trained, const AdamWOptions& options);

}  // namespace mft
