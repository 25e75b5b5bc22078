// SPDX-License-Identifier: Apache-2.0
// Gradients of weights that are trained themselves (full fine-tuning): views of a ParamStore's
// arena, to which a backward pass adds. Letters: O out, I in, D width, V vocabulary.
#pragma once

#include <vector>

#include "worker/kernels/kernels.h"

namespace mft {

struct FfnGrads {
  View w1, w2, w3;  // [O, I] fp32, as all views here; data null: not trained
  bool present() const { return w1.data != nullptr; }
};

struct BlockGrads {
  View wq, wk, wv, wo;
  View w1, w2, w3;                  // of a dense model
  View router;                      // [experts, D], and
  std::vector<FfnGrads> experts;    // of a mixture of experts
  float* attention_norm = nullptr;  // [D]
  float* ffn_norm = nullptr;        // [D]
};

struct HeadGrads {
  View embeddings;        // [V, D]
  View output;            // [V, D]
  float* norm = nullptr;  // [D]
};

// Of W in y = x W': grad [O, I] += dy' x.
inline void AddWeightGrad(const KernelTable& kernels, View grad, View dy, View x) {
  kernels.gemm(grad, dy, x, {.transpose_a = true, .beta = 1});
}

}  // namespace mft
