// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "common/checkpoint/model_params.h"

namespace mft {

// [positions, E/2, (cos, sin)] of position * rope_theta^(-2j/E); angles in double, stored fp32.
std::vector<float> RotaryTable(const ModelParams& params, int64_t positions);

}  // namespace mft
