// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/model/moving_weights_testing.h"

#include <cstddef>
#include <cstring>
#include <span>

#include "tests/worker/model/random_weights.h"
#include "worker/kernels/cpu_runtime.h"
#include "worker/model/lora_store.h"

namespace mft::testing {

namespace {
constexpr int32_t kVocabulary = 256;
constexpr int64_t kTokens = 75;  // no multiple of 16

void Append(std::vector<std::byte>& bytes, const KernelTable& kernels, View view) {
  const size_t begin = bytes.size();
  const auto size = static_cast<size_t>(view.rows * view.stride * ElementBytes(view.type));
  bytes.resize(begin + size);
  kernels.memory->download(bytes.data() + begin, view.data, size);
}

void Append(std::vector<std::byte>& bytes, const KernelTable& kernels, const FrozenMat& matrix) {
  if (matrix.data.data == nullptr) {
    return;
  }
  Append(bytes, kernels, matrix.data);
  // The last of a row of scales are padding.
  for (int64_t row = 0; row < matrix.scales.rows; ++row) {
    View scales = matrix.scales.Rows(row, 1);
    scales.stride = scales.cols;
    Append(bytes, kernels, scales);
  }
}

uint64_t HashOf(const BlockWeights& block, int64_t dim, const KernelTable& kernels) {
  std::vector<std::byte> bytes;
  for (const FrozenMat* matrix : {&block.wq,
                                  &block.wk,
                                  &block.wv,
                                  &block.wo,
                                  &block.w1,
                                  &block.w2,
                                  &block.w3,
                                  &block.router}) {
    Append(bytes, kernels, *matrix);
  }
  for (const ExpertWeights& expert : block.experts) {
    Append(bytes, kernels, expert.w1);
    Append(bytes, kernels, expert.w2);
    Append(bytes, kernels, expert.w3);
  }
  for (const float* norm : {block.attention_norm, block.ffn_norm}) {
    Append(bytes, kernels, MatrixView(const_cast<float*>(norm), 1, dim));
  }
  return Hash(bytes);
}
}  // namespace

ModelParams MovingParams(bool moe) {
  ModelParams params{.dim = 128,
                     .n_layers = 5,
                     .head_dim = 64,
                     .hidden_dim = 128,
                     .n_heads = 2,
                     .n_kv_heads = 2,
                     .norm_eps = 1e-5,
                     .vocab_size = kVocabulary,
                     .rope_theta = 10000};
  if (moe) {
    params.moe = MoeParams{.num_experts = 4, .num_experts_per_tok = 2};
  }
  return params;
}

// FNV-1a
uint64_t Hash(const std::vector<std::byte>& bytes) {
  uint64_t hash = 14695981039346656037U;
  for (const std::byte byte : bytes) {
    hash = (hash ^ static_cast<uint64_t>(byte)) * 1099511628211U;
  }
  return hash;
}

std::vector<uint64_t> HashesInEveryOrder(WeightSource& weights, const KernelTable& kernels) {
  const int64_t layers = weights.params().n_layers;
  std::vector<uint64_t> hashes;
  const auto look = [&](int64_t block, Phase phase) {
    const BlockLease lease = weights.Acquire(block, phase);
    hashes.push_back(HashOf(*lease, weights.params().dim, kernels));
  };
  for (int step = 0; step < 3; ++step) {
    for (int64_t block = 0; block < layers; ++block) {
      look(block, Phase::kForward);
    }
    for (int64_t block = layers - 1; step < 2 && block >= 0; --block) {
      look(block, Phase::kBackward);
    }
  }
  for (int64_t i = 0; i < 20; ++i) {
    look(i * 7919 % 104729 % layers, i % 3 == 0 ? Phase::kBackward : Phase::kForward);
  }
  return hashes;
}

uint64_t TrainedHash(WeightSource& weights, const KernelTable& kernels, RecomputePolicy policy) {
  SetCpuThreads(1);  // a small model's loops are shorter than a team of threads takes to meet
  LoraStore store(weights.params(),
                  {.rank = 8,
                   .target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"},
                   .kernels = &kernels});
  Noise(7).Fill(store.master(), 0.1F);
  store.Upload();
  Transformer model(weights,
                    store,
                    kernels,
                    {.policy = policy,
                     .max_rows = kTokens,
                     .max_positions = kTokens,
                     .sizes = GpuSizes(kTokens)});
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < kTokens; ++i) {
    tokens.push_back(i * 37 % kVocabulary);
  }
  const std::vector<float> weight(tokens.size(), 1.0F / kTokens);
  const std::vector<int32_t> cu_seqlens = {0, 30, kTokens};
  std::vector<double> losses;
  store.ZeroGrad();
  for (int step = 0; step < 2; ++step) {
    model.AddForwardBackward({tokens, tokens, weight, cu_seqlens});
    model.AddForwardBackward({tokens, tokens, weight, cu_seqlens});
    losses.push_back(model.TakeLoss());
  }
  std::vector<std::byte> bytes(store.grad().size_bytes());
  kernels.memory->download(bytes.data(), store.grad().data(), bytes.size());
  const auto of_losses = std::as_bytes(std::span(losses));
  bytes.insert(bytes.end(), of_losses.begin(), of_losses.end());
  return Hash(bytes);
}

}  // namespace mft::testing
