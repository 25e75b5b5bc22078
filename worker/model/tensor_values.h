// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "common/checkpoint/safetensors.h"

namespace mft {

// The values of an F32, BF16 or F16 tensor, wherever its bytes lie, as fp32. REQUIRES: `to` has as
// many elements.
void ReadValues(const TensorEntry& tensor, std::span<float> to);

}  // namespace mft
