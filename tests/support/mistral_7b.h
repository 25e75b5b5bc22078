// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/checkpoint/model_params.h"

namespace mft::testing {

// Mistral 7B v0.3.
inline ModelParams Mistral7B() {
  return {.dim = 4096,
          .n_layers = 32,
          .head_dim = 128,
          .hidden_dim = 14336,
          .n_heads = 32,
          .n_kv_heads = 8,
          .vocab_size = 32768};
}

}  // namespace mft::testing
