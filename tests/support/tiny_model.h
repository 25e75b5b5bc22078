// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "common/checkpoint/model_params.h"

namespace mft::testing {

// Writes params.json and consolidated.safetensors (fp32, normal values of variance 1 / columns,
// norms 1) into `directory`. The same seed gives the same model. Aborts with the reason if that
// fails.
void WriteTinyModel(const std::string& directory, const ModelParams& params, uint32_t seed = 1);

// The same files for a model of any size that takes no room on the disk: bf16, all zeros, a file
// with holes.
void WriteSparseModel(const std::string& directory, const ModelParams& params);

// A small dense model; the sizes may be changed.
inline ModelParams TinyParams(int64_t vocab_size) {
  return {.dim = 32,
          .n_layers = 2,
          .head_dim = 16,
          .hidden_dim = 64,
          .n_heads = 2,
          .n_kv_heads = 1,
          .vocab_size = vocab_size};
}

}  // namespace mft::testing
