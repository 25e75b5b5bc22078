// SPDX-License-Identifier: Apache-2.0
// Which tensor is which weight of a block: the one place for all sources of weights.
#pragma once

#include <string>

#include "common/base/strings.h"
#include "common/checkpoint/model_params.h"

namespace mft {

// Sets every member of a BlockWeights or BlockGrads: matrices to matrix(name), vectors to
// vector(name).
template <typename Block, typename Matrix, typename Vector>
void FillBlock(Block& block,
               const ModelParams& params,
               int64_t layer,
               const Matrix& matrix,
               const Vector& vector) {
  const auto projection = [&](const char* module) {
    return matrix(ProjectionName(layer, module) + ".weight");
  };
  block.wq = projection("wq");
  block.wk = projection("wk");
  block.wv = projection("wv");
  block.wo = projection("wo");
  block.attention_norm = vector(StrCat("layers.", layer, ".attention_norm.weight"));
  block.ffn_norm = vector(StrCat("layers.", layer, ".ffn_norm.weight"));
  if (!params.moe) {
    block.w1 = projection("w1");
    block.w2 = projection("w2");
    block.w3 = projection("w3");
    return;
  }
  block.router = matrix(RouterName(layer));
  for (int64_t expert = 0; expert < params.moe->num_experts; ++expert) {
    const auto of_expert = [&](const char* module) {
      return matrix(ExpertProjectionName(layer, expert, module) + ".weight");
    };
    block.experts.push_back({of_expert("w1"), of_expert("w2"), of_expert("w3")});
  }
}

}  // namespace mft
