// SPDX-License-Identifier: Apache-2.0
// The losses of a fine-tuning whose frozen base is in fp8 beside those in bf16, on a base that has
// learnt something: noise would hide what e4m3 takes from weights. A small model is trained, all of
// it, on sequences of one grammar, and then its adapter on those of another.
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/worker/model/device_kernels.h"
#include "worker/model/device_weights.h"
#include "worker/model/full_store.h"
#include "worker/model/lora_store.h"
#include "worker/model/transformer.h"
#include "worker/train/adamw.h"
#include "worker/train/grad_clip.h"
#include "worker/train/lora_init.h"
#include "worker/train/optimizer.h"

namespace mft {
namespace {

constexpr int64_t kVocabulary = 256;
constexpr int64_t kDocuments = 8;
constexpr int64_t kDocumentRows = 21;  // in sum no multiple of 16
constexpr int64_t kRows = kDocuments * kDocumentRows;

const ModelParams kParams{.dim = 256,
                          .n_layers = 2,
                          .head_dim = 64,
                          .hidden_dim = 512,
                          .n_heads = 4,
                          .n_kv_heads = 2,
                          .norm_eps = 1e-5,
                          .vocab_size = kVocabulary,
                          .rope_theta = 10000};

// Documents of a grammar: after a token come four others, one of them half of the time. Every
// eighth token is the first of its document again, so that there is something to attend to. What
// follows an odd token is another in grammar 1 than in grammar 0.
struct Batch {
  Batch(int grammar, uint32_t seed) {
    std::mt19937 random(seed);
    for (int64_t document = 0; document < kDocuments; ++document) {
      const auto first = static_cast<int32_t>(random() % kVocabulary);
      int32_t token = first;
      for (int64_t i = 0; i < kDocumentRows; ++i) {
        tokens.push_back(token);
        const uint32_t dice = random() % 8;
        const auto choice = static_cast<int32_t>(dice < 4 ? 0 : dice < 6 ? 1 : dice - 4);
        const int32_t factor = grammar == 1 && token % 2 == 1 ? 13 : 5;
        token = i % 8 == 7 ? first : (token * factor + 31 * choice + 7) % kVocabulary;
        targets.push_back(token);
      }
      cu_seqlens.push_back(static_cast<int32_t>(tokens.size()));
    }
  }
  Rows rows() const { return {tokens, targets, weight, cu_seqlens}; }
  std::vector<int32_t> tokens, targets, cu_seqlens = {0};
  std::vector<float> weight = std::vector<float>(kRows, 1.0F / kRows);
};

double TrainStep(
    Transformer& model, ParamStore& store, const Batch& batch, double lr, int64_t step) {
  store.ZeroGrad();
  const double loss = model.ForwardBackward(batch.rows());
  UpdateWeights(
      store,
      {.lr = lr, .beta1 = 0.9, .grad_scale = ClipFactor(GradNorm(store), 1), .update = step});
  return loss;
}

TransformerOptions Options() {
  return {.policy = RecomputePolicy::kNothing,
          .max_rows = kRows,
          .max_positions = kDocumentRows,
          .sizes = GpuSizes(kRows)};
}

// Trains every weight on grammar 0 and writes the model. Returns the last losses' mean.
double Pretrain(const std::string& dir, int64_t steps) {
  testing::WriteTinyModel(dir, kParams);
  FullStore store(*ModelWeights::Open(dir, kParams).value());
  const auto weights = store.AsWeights();
  const LoraStore none(kParams, {.target_modules = {}, .training = false});
  Transformer model(*weights, none, CpuKernels(), Options());
  double last = 0;
  for (int64_t step = 1; step <= steps; ++step) {
    const double left = 1 - static_cast<double>(step) / static_cast<double>(steps);
    const double loss =
        TrainStep(model, store, Batch(0, static_cast<uint32_t>(step)), 3e-3 * (0.05 + left), step);
    last += steps - step < 10 ? loss / 10 : 0;
  }
  std::vector<TensorToWrite> tensors;
  for (const ParamStore::Tensor& tensor : store.tensors()) {
    tensors.push_back({.name = tensor.name,
                       .dtype = DType::kF32,
                       .shape = tensor.shape(),
                       .data = std::as_bytes(ParamStore::Part(store.master(), tensor))});
  }
  EXPECT_TRUE(WriteSafetensors(dir + "/consolidated.safetensors", std::move(tensors)).ok());
  return last;
}

// Of each step of the adapter's training on grammar 1, and after it of batches never seen.
std::vector<double> LossesOf(const std::string& dir, bool quantise, int64_t steps) {
  const KernelTable& kernels = testing::DeviceKernels(true);
  const auto files = ModelWeights::Open(dir, kParams).value();
  const auto weights =
      MakeDeviceWeights({kParams, kernels, quantise}, FillFromFiles(*files, kernels));
  LoraStore store(kParams,
                  {.rank = 16,
                   .scaling = 2,
                   .target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"},
                   .kernels = &kernels});
  for (const ParamStore::Tensor& tensor : store.tensors()) {
    if (tensor.name.find("lora_A") != std::string::npos) {
      InitLoraA(1, tensor.name, tensor.cols, true, ParamStore::Part(store.master(), tensor));
    }
  }
  store.Upload();
  Transformer model(*weights, store, kernels, Options());
  std::vector<double> losses;
  for (int64_t step = 1; step <= steps; ++step) {
    losses.push_back(
        TrainStep(model, store, Batch(1, 1000 + static_cast<uint32_t>(step)), 2e-3, step));
  }
  constexpr uint32_t kUnseen = 8;
  double unseen = 0;
  for (uint32_t seed = 1; seed <= kUnseen; ++seed) {
    unseen += model.Loss(Batch(1, seed).rows()) / kUnseen;
  }
  losses.push_back(unseen);
  return losses;
}

TEST(DeviceFp8, LosesAsBf16DoesOver100Steps) {
  constexpr double kBound = 0.005;
  constexpr int64_t kSteps = 100;
  if (!CanQuantise(kParams, testing::DeviceKernels(true)).ok()) {
    GTEST_SKIP() << CanQuantise(kParams, testing::DeviceKernels(true)).message();
  }
  const testing::TempDir dir;
  const double learnt = Pretrain(dir.path(), 400);
  const std::vector<double> bf16 = LossesOf(dir.path(), false, kSteps);
  const std::vector<double> fp8 = LossesOf(dir.path(), true, kSteps);
  double sum = 0;
  double largest = 0;
  for (size_t i = 0; i < bf16.size(); ++i) {
    const double apart = std::abs(fp8[i] - bf16[i]) / bf16[i];
    sum += apart;
    largest = std::max(largest, apart);
  }
  const double mean = sum / static_cast<double>(bf16.size());
  const double at_end = std::abs(fp8.back() - bf16.back()) / bf16.back();
  std::printf(
      "base learnt to %.3f; adapter in bf16 from %.3f to %.3f; fp8 apart by %.3f %% in the mean, "
      "%.3f %% at most, %.3f %% at the end\n",
      learnt,
      bf16.front(),
      bf16.back(),
      100 * mean,
      100 * largest,
      100 * at_end);
  EXPECT_LT(learnt, 2.5);  // of ln(256) = 5.5: the weights are no noise
  EXPECT_LT(bf16.back(), 0.6 * bf16.front());
  EXPECT_LE(mean, kBound);
  EXPECT_LE(at_end, kBound);
}

}  // namespace
}  // namespace mft
