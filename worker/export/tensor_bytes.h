// SPDX-License-Identifier: Apache-2.0
// A tensor's bytes as fp32 values and back, and its rows in Hugging Face's order. F32, BF16 and F16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/checkpoint/safetensors.h"

namespace mft {

using Bytes = std::vector<std::byte>;

std::vector<float> Widen(const TensorEntry& entry);
Bytes Narrow(std::span<const float> values, DType dtype);  // to the nearest, ties to even
// The rows of a wq or wk, or of its lora_B, of any element type.
Bytes RowsOfHuggingFace(std::span<const std::byte> bytes, int64_t rows, int64_t head_dim);

}  // namespace mft
