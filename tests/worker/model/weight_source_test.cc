// SPDX-License-Identifier: Apache-2.0
#include "worker/model/weight_source.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/checkpoint/safetensors.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "worker/model/bf16.h"
#include "worker/model/transformer.h"

namespace mft {
namespace {

// The tiny model in `from`, its values rounded to bf16 and stored as bf16 or as fp32.
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
      bits.push_back(Bf16Bits(value));
      value = FloatFromBf16(bits.back());
    }
    tensors.push_back({tensor.name,
                       dtype,
                       tensor.shape,
                       dtype == DType::kBF16 ? std::as_bytes(std::span(bits))
                                             : std::as_bytes(std::span(values))});
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

// bf16 matrices take half the memory of fp32 ones, are not copied, and give the same numbers.
TEST(ResidentWeights, OfBf16AreUsedAsTheyAreInTheFile) {
  const testing::TempDir dir;
  testing::WriteTinyModel(dir.File("model"), testing::TinyParams(64));
  WriteRounded(dir.File("model"), dir.File("bf16"), DType::kBF16);
  WriteRounded(dir.File("model"), dir.File("fp32"), DType::kF32);
  const auto narrow = LoadResidentWeights(dir.File("bf16")).value();
  const auto wide = LoadResidentWeights(dir.File("fp32")).value();
  EXPECT_EQ(narrow->head().output.format, WeightFormat::kBF16);
  EXPECT_EQ(wide->head().output.format, WeightFormat::kF32);
  const int64_t vectors = 5 * 32 * 4;  // norms are always fp32
  EXPECT_EQ(2 * (narrow->resident_bytes() - vectors), wide->resident_bytes() - vectors);
  const std::vector<float> expected = Logits(*wide);
  const std::vector<float> logits = Logits(*narrow);
  for (size_t i = 0; i < logits.size(); ++i) {
    ASSERT_NEAR(logits[i], expected[i], 1e-5) << i;
  }
  if (CpuKernels().name == "cpu-avx512") {
    EXPECT_EQ(logits, expected);
  }
}

}  // namespace
}  // namespace mft
