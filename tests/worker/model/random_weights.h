// SPDX-License-Identifier: Apache-2.0
// A model of any size without a file: uniform noise, the same in every run.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/model/weight_source.h"

namespace mft::testing {

// Uniform in [-scale, scale).
class Noise {
 public:
  explicit Noise(uint64_t seed = 1) : state_(seed) {}
  void Fill(std::span<float> values, float scale) {
    for (float& value : values) {
      state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
      value = scale * (static_cast<float>(state_ >> 40) / static_cast<float>(1 << 23) - 1.0F);
    }
  }

 private:
  uint64_t state_;
};

class RandomWeights final : public WeightSource {
 public:
  explicit RandomWeights(const ModelParams& params, float scale = 0.04F)
      : params_(params), scale_(scale) {
    const int64_t d = params.dim;
    const int64_t q = params.n_heads * params.head_dim;
    const int64_t kv = params.n_kv_heads * params.head_dim;
    for (int64_t layer = 0; layer < params.n_layers; ++layer) {
      BlockWeights& block = blocks_.emplace_back();
      block.wq = Matrix(q, d);
      block.wk = Matrix(kv, d);
      block.wv = Matrix(kv, d);
      block.wo = Matrix(d, q);
      if (!params.moe) {
        block.w1 = Matrix(params.hidden_dim, d);
        block.w2 = Matrix(d, params.hidden_dim);
        block.w3 = Matrix(params.hidden_dim, d);
      } else {
        AddExperts(block);
      }
      block.attention_norm = Vector(d);
      block.ffn_norm = Vector(d);
    }
    head_ = {.embeddings = Matrix(params.vocab_size, d),
             .output = Matrix(params.vocab_size, d),
             .norm = Vector(d)};
  }
  const ModelParams& params() const override { return params_; }
  BlockLease Acquire(int64_t block, Phase /*phase*/) override {
    return BlockLease(&blocks_[static_cast<size_t>(block)]);
  }
  const HeadWeights& head() const override { return head_; }
  int64_t resident_bytes() const override { return bytes_; }

 private:
  void AddExperts(BlockWeights& block) {
    const int64_t d = params_.dim;
    const int64_t f = params_.hidden_dim;
    block.router = Matrix(params_.moe->num_experts, d);
    for (int64_t expert = 0; expert < params_.moe->num_experts; ++expert) {
      ExpertWeights& weights = block.experts.emplace_back();
      weights.w1 = Matrix(f, d);
      weights.w2 = Matrix(d, f);
      weights.w3 = Matrix(f, d);
    }
  }
  float* Values(int64_t count, float scale) {
    std::vector<float>& data = data_.emplace_back(static_cast<size_t>(count));
    noise_.Fill(data, scale);
    bytes_ += count * static_cast<int64_t>(sizeof(float));
    return data.data();
  }
  FrozenMat Matrix(int64_t out, int64_t in) {
    return {MatrixView(Values(out * in, scale_), out, in), WeightFormat::kF32, out, in};
  }
  const float* Vector(int64_t count) {
    float* values = Values(count, 0.3F);
    for (int64_t i = 0; i < count; ++i) {
      values[i] += 1.0F;
    }
    return values;
  }

  ModelParams params_;
  float scale_;
  Noise noise_;
  std::vector<std::vector<float>> data_;
  std::vector<BlockWeights> blocks_;
  HeadWeights head_;
  int64_t bytes_ = 0;
};

}  // namespace mft::testing
