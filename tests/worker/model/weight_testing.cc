// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/model/weight_testing.h"

#include <cstring>
#include <span>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/checkpoint/safetensors.h"
#include "worker/model/bf16.h"
#include "worker/model/transformer.h"

namespace mft::testing {

namespace {
constexpr uint16_t kFiniteHalf = 0xBBFF;
}  // namespace

void WriteRounded(const std::string& from, const std::string& to, DType dtype) {
  const auto source = SafetensorsFile::Open(from + "/consolidated.safetensors").value();
  std::vector<std::vector<uint16_t>> narrow;
  std::vector<std::vector<float>> wide;
  std::vector<TensorToWrite> tensors;
  for (const TensorEntry& tensor : source->tensors()) {
    std::vector<float>& values = wide.emplace_back(tensor.data.size() / sizeof(float));
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    std::vector<uint16_t>& bits = narrow.emplace_back();
    for (float& value : values) {
      bits.push_back(dtype == DType::kF16 ? Bf16Bits(value) & kFiniteHalf : Bf16Bits(value));
      value = FloatFromBf16(bits.back());
    }
    tensors.push_back(
        {tensor.name,
         dtype,
         tensor.shape,
         dtype == DType::kF32 ? std::as_bytes(std::span(values)) : std::as_bytes(std::span(bits))});
  }
  ASSERT_TRUE(MakeDirs(to).ok());
  ASSERT_TRUE(
      WriteFileAtomic(to + "/params.json", ReadFile(from + "/params.json", 1 << 16).value()).ok());
  ASSERT_TRUE(WriteSafetensors(to + "/consolidated.safetensors", tensors).ok());
}

std::vector<float> Logits(WeightSource& weights) {
  const LoraStore none(weights.params(), {.target_modules = {}, .training = false});
  Transformer model(
      weights, none, CpuKernels(), {.max_rows = 96, .max_positions = 96, .training = false});
  std::vector<int32_t> tokens(96);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>((7 * i + i / 5) % 64);
  }
  std::vector<float> logits(tokens.size() * 64);
  const std::vector<int32_t> cu_seqlens = {0, 40, 96};
  model.AllLogits(tokens, cu_seqlens, logits);
  return logits;
}

void ExpectSameMatrix(const FrozenMat& actual, const FrozenMat& expected) {
  ASSERT_EQ(actual.format, expected.format);
  ASSERT_EQ(actual.out, expected.out);
  ASSERT_EQ(actual.in, expected.in);
  const auto row_bytes = static_cast<size_t>(expected.in * ElementBytes(expected.data.type));
  for (int64_t row = 0; row < expected.out; ++row) {
    ASSERT_EQ(
        std::memcmp(actual.data.Rows(row, 1).data, expected.data.Rows(row, 1).data, row_bytes), 0)
        << row;
  }
}

void ExpectSameBlock(const BlockWeights& actual, const BlockWeights& expected, int64_t dim) {
  ExpectSameMatrix(actual.wq, expected.wq);
  ExpectSameMatrix(actual.wk, expected.wk);
  ExpectSameMatrix(actual.wv, expected.wv);
  ExpectSameMatrix(actual.wo, expected.wo);
  ASSERT_EQ(actual.experts.size(), expected.experts.size());
  for (size_t e = 0; e < expected.experts.size(); ++e) {
    ExpectSameMatrix(actual.experts[e].w1, expected.experts[e].w1);
    ExpectSameMatrix(actual.experts[e].w2, expected.experts[e].w2);
    ExpectSameMatrix(actual.experts[e].w3, expected.experts[e].w3);
  }
  if (expected.experts.empty()) {
    ExpectSameMatrix(actual.w1, expected.w1);
    ExpectSameMatrix(actual.w2, expected.w2);
    ExpectSameMatrix(actual.w3, expected.w3);
  } else {
    ExpectSameMatrix(actual.router, expected.router);
  }
  for (int64_t i = 0; i < dim; ++i) {
    ASSERT_EQ(actual.attention_norm[i], expected.attention_norm[i]);
    ASSERT_EQ(actual.ffn_norm[i], expected.ffn_norm[i]);
  }
}

}  // namespace mft::testing
