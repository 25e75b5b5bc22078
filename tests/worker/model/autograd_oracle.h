// SPDX-License-Identifier: Apache-2.0
// A block and the loss head in float64 by LibTorch's autograd: the oracle of the explicit backward
// passes. Letters: T rows, D width.
#pragma once

#include <map>
#include <string>

#include <ATen/core/Tensor.h>

#include "worker/model/block.h"
#include "worker/model/lora_store.h"
#include "worker/model/loss.h"

namespace mft::testing {

// The adapters of one block as leaves: "wq.lora_A.weight", "experts.1.w2.lora_B.weight" and so on.
using AdapterLeaves = std::map<std::string, at::Tensor>;
AdapterLeaves LeavesOf(LoraStore& store, int64_t layer);

at::Tensor ToTensor(View view);  // a float64 copy
at::Tensor Leaf(View view);      // the same, requires grad
std::vector<float> ToFloats(const at::Tensor& tensor);

// Weights as leaves, by the address of their first element; others are constants.
using WeightLeaves = std::map<const void*, at::Tensor>;

// Output [T, D] of a block for `x` [T, D]; documents as in `cu_seqlens`.
at::Tensor BlockOracle(const ModelParams& params,
                       const BlockWeights& weights,
                       const AdapterLeaves& adapters,
                       double scale,
                       const at::Tensor& x,
                       std::span<const int32_t> cu_seqlens,
                       const WeightLeaves& trained = {});

// Sum of weight * cross entropy of the given rows.
at::Tensor LossOracle(const HeadWeights& head,
                      double eps,
                      const at::Tensor& hidden,
                      const LossRows& rows,
                      const WeightLeaves& trained = {});

}  // namespace mft::testing
