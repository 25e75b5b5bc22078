// SPDX-License-Identifier: Apache-2.0
#include "worker/model/tensor_values.h"

#include <cstring>

#include "worker/model/bf16.h"
#include "worker/model/fp16.h"

namespace mft {

void ReadValues(const TensorEntry& tensor, std::span<float> to) {
  if (tensor.dtype == DType::kF32) {
    std::memcpy(to.data(), tensor.data.data(), tensor.data.size());
    return;
  }
  const bool half = tensor.dtype == DType::kF16;
  for (size_t i = 0; i < to.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, tensor.data.data() + i * sizeof bits, sizeof bits);
    to[i] = half ? FloatFromFp16(bits) : FloatFromBf16(bits);
  }
}

}  // namespace mft
