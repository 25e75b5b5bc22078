// SPDX-License-Identifier: Apache-2.0
#include "worker/model/weight_source.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/checkpoint/safetensors.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "worker/model/bf16.h"
#include "worker/model/fp16.h"
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

std::unique_ptr<WeightSource> Offloaded(const std::string& model) {
  return MakeOffloadedWeights(ModelWeights::Open(model, ReadModelParams(model).value()).value());
}

// Steps as training takes them, evaluations, and blocks in no order at all.
TEST(OffloadedWeights, AreThoseOfTheResidentSourceInEveryOrder) {
  const testing::TempDir dir;
  ModelParams params = testing::TinyParams(64);
  params.n_layers = 5;
  testing::WriteTinyModel(dir.File("model"), params);
  WriteRounded(dir.File("model"), dir.File("bf16"), DType::kBF16);
  for (const std::string& model : {dir.File("model"),
                                   dir.File("bf16"),
                                   testing::Fixture("train/moe/model"),
                                   testing::Fixture("train/dense-bf16/model")}) {
    SCOPED_TRACE(model);
    const auto resident = LoadResidentWeights(model).value();
    const auto offloaded = Offloaded(model);
    ExpectSameMatrix(offloaded->head().output, resident->head().output);
    ExpectSameMatrix(offloaded->head().embeddings, resident->head().embeddings);
    const int64_t layers = resident->params().n_layers;
    const auto look = [&](int64_t block, Phase phase) {
      const BlockLease lease = offloaded->Acquire(block, phase);
      ExpectSameBlock(*lease, *resident->Acquire(block, phase), resident->params().dim);
    };
    for (int step = 0; step < 3; ++step) {
      for (int64_t block = 0; block < layers; ++block) {
        look(block, Phase::kForward);
      }
      for (int64_t block = layers - 1; step < 2 && block >= 0; --block) {
        look(block, Phase::kBackward);
      }
    }
    for (int64_t i = 0; i < 50; ++i) {
      look(i * 7919 % 104729 % layers, i % 3 == 0 ? Phase::kBackward : Phase::kForward);
    }
  }
}

TEST(OffloadedWeights, HoldTwoBlocksAndTheHead) {
  const testing::TempDir dir;
  ModelParams params = testing::TinyParams(64);
  params.n_layers = 9;
  testing::WriteTinyModel(dir.path(), params);
  const auto resident = LoadResidentWeights(dir.path()).value();
  const auto offloaded = Offloaded(dir.path());
  const int64_t head = 2 * params.vocab_size * params.dim * 4;
  EXPECT_NEAR(static_cast<double>(offloaded->resident_bytes() - head),
              static_cast<double>(resident->resident_bytes() - head) * 2 / 9,
              4096);
}

TEST(Fp16, IsThatOfItsBits) {
  EXPECT_EQ(FloatFromFp16(0x3C00), 1.0F);
  EXPECT_EQ(FloatFromFp16(0xC001), -2.001953125F);
  EXPECT_EQ(FloatFromFp16(0x7BFF), 65504.0F);
  EXPECT_EQ(FloatFromFp16(0x0400), 0x1p-14F);
  EXPECT_EQ(FloatFromFp16(0x83FF), -0x3FFp-24F);  // denormal
  EXPECT_EQ(FloatFromFp16(0x0001), 0x1p-24F);
  EXPECT_EQ(FloatFromFp16(0x0000), 0.0F);
  EXPECT_TRUE(std::signbit(FloatFromFp16(0x8000)));
  EXPECT_EQ(FloatFromFp16(0xFC00), -INFINITY);
  EXPECT_TRUE(std::isnan(FloatFromFp16(0x7E00)));
}

}  // namespace
}  // namespace mft
