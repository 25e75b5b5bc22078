// SPDX-License-Identifier: Apache-2.0
#include "worker/model/rotary.h"

#include <cmath>

namespace mft {

std::vector<float> RotaryTable(const ModelParams& params, int64_t positions) {
  std::vector<float> table(static_cast<size_t>(positions * params.head_dim));
  for (int64_t j = 0; j < params.head_dim; j += 2) {
    const double frequency =
        std::pow(params.rope_theta, -static_cast<double>(j) / static_cast<double>(params.head_dim));
    for (int64_t position = 0; position < positions; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      float* pair = table.data() + position * params.head_dim + j;
      pair[0] = static_cast<float>(std::cos(angle));
      pair[1] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

}  // namespace mft
