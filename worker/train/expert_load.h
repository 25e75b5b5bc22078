// SPDX-License-Identifier: Apache-2.0
// How a mixture of experts shares out its tokens: what a step's metrics say about the router.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mft {

struct ExpertLoad {
  // Of all visits of all layers, the share of each expert; they sum to 1. Empty: no visit.
  std::vector<double> share;
  // Of the layer with the most uneven load: visits of its busiest expert / mean visits of its
  // experts. 1: even; experts / experts per token: every token goes to the same ones.
  double imbalance = 0;
};

// `rows` [layers, experts]: how many rows went to each expert.
ExpertLoad LoadOfExperts(std::span<const int64_t> rows, int64_t experts);

}  // namespace mft
