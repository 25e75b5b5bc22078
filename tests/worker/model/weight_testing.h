// SPDX-License-Identifier: Apache-2.0
// Models in several formats, and what a source of weights owes of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/checkpoint/safetensors.h"
#include "worker/model/weight_source.h"

namespace mft::testing {

// The tiny model in `from`, its values rounded to bf16 and stored as bf16 or as fp32; F16: other
// values, which fp16 can be.
void WriteRounded(const std::string& from, const std::string& to, DType dtype);

// Of a fixed text of 96 tokens out of 64.
std::vector<float> Logits(WeightSource& weights);

// The same format, sizes and bits.
void ExpectSameMatrix(const FrozenMat& actual, const FrozenMat& expected);
void ExpectSameBlock(const BlockWeights& actual, const BlockWeights& expected, int64_t dim);

}  // namespace mft::testing
