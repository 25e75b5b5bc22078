// SPDX-License-Identifier: Apache-2.0
#include "worker/export/tensor_bytes.h"

#include <algorithm>
#include <cstring>

#include "common/checkpoint/hf_layout.h"
#include "worker/model/bf16.h"
#include "worker/model/fp16.h"
#include "worker/model/tensor_values.h"

namespace mft {

std::vector<float> Widen(const TensorEntry& entry) {
  std::vector<float> values(entry.data.size() / DTypeSize(entry.dtype));
  ReadValues(entry, values);
  return values;
}

Bytes Narrow(std::span<const float> values, DType dtype) {
  Bytes bytes(values.size() * DTypeSize(dtype));
  if (dtype == DType::kF32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = dtype == DType::kF16 ? Fp16Bits(values[i]) : Bf16Bits(values[i]);
    std::memcpy(bytes.data() + i * sizeof bits, &bits, sizeof bits);
  }
  return bytes;
}

Bytes RowsOfHuggingFace(std::span<const std::byte> bytes, int64_t rows, int64_t head_dim) {
  Bytes out(bytes.size());
  const size_t row_bytes = bytes.size() / static_cast<size_t>(rows);
  for (int64_t row = 0; row < rows; ++row) {
    const auto from =
        bytes.subspan(static_cast<size_t>(MistralRow(head_dim, row)) * row_bytes, row_bytes);
    std::ranges::copy(from, out.begin() + row * static_cast<int64_t>(row_bytes));
  }
  return out;
}

}  // namespace mft
