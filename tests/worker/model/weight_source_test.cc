// SPDX-License-Identifier: Apache-2.0
#include "worker/model/weight_source.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/worker/model/weight_testing.h"
#include "worker/model/fp16.h"

namespace mft {
namespace {

using testing::ExpectSameBlock;
using testing::ExpectSameMatrix;
using testing::Logits;
using testing::WriteRounded;

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
  WriteRounded(dir.File("model"), dir.File("fp16"), DType::kF16);
  for (const std::string& model : {dir.File("model"),
                                   dir.File("bf16"),
                                   dir.File("fp16"),
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
