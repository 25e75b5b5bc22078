// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace mft {

struct SamplingOptions {
  double temperature = 0;  // 0: the most likely token
  double top_p = 1;        // the smallest set of most likely tokens with at least this probability
  uint64_t seed = 0;
};

// The token at `position` of an answer. A function of its arguments: the same seed gives the same
// answer. Ties go to the lower id; logits that are not finite are never chosen (-1 if none is).
int32_t SampleToken(std::span<const float> logits,
                    const SamplingOptions& options,
                    uint64_t position);

}  // namespace mft
