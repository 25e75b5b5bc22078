// SPDX-License-Identifier: Apache-2.0
// Global gradient norm and the factor that bounds it (torch.nn.utils.clip_grad_norm_).
#pragma once

#include <span>

namespace mft {

// Sum of squares in fp64, added up in blocks of fixed size: the same bits with any number of
// threads. Not finite if and only if an element is not (fp64 holds the square of every fp32).
double SumOfSquares(std::span<const float> gradient);

// min(1, max_norm / (norm + 1e-6)); NaN for a NaN norm.
double ClipFactor(double norm, double max_norm);

}  // namespace mft
