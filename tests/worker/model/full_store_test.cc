// SPDX-License-Identifier: Apache-2.0
// Gradients of every weight of a model (full fine-tuning) against autograd in float64 and against
// finite differences. (Whole runs: tests/worker/train/trajectory_test.cc.)
#include "worker/model/full_store.h"

#include <array>
#include <cmath>
#include <optional>

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tests/worker/model/autograd_oracle.h"
#include "tests/worker/model/random_weights.h"
#include "worker/model/transformer.h"

namespace mft {
namespace {

constexpr int32_t kRows = 23;
const std::vector<int32_t> kDocuments = {0, 5, 6, 23};

struct FullCase {
  const char* name;
  int64_t heads, kv_heads, head_dim;
  int64_t vocab_size = 96;
  std::optional<MoeParams> moe = std::nullopt;
  bool tied = false;
};

ModelParams Params(const FullCase& c) {
  return {.dim = 32,
          .n_layers = 2,
          .head_dim = c.head_dim,
          .hidden_dim = 44,
          .n_heads = c.heads,
          .n_kv_heads = c.kv_heads,
          .vocab_size = c.vocab_size,
          .moe = c.moe,
          .tied_embeddings = c.tied};
}

// A model of noise, and a batch in which tokens repeat.
class FullModel {
 public:
  explicit FullModel(const FullCase& c, RecomputePolicy policy = RecomputePolicy::kNothing)
      : params(Params(c)),
        store(params, true),
        weights(store.AsWeights()),
        none(params, {.target_modules = {}, .training = false}),
        model(*weights,
              none,
              CpuKernels(),
              {.policy = policy, .max_rows = kRows, .max_positions = kRows}) {
    testing::Noise noise(11);
    for (const ParamStore::Tensor& tensor : store.tensors()) {
      const std::span<float> values = ParamStore::Part(store.master(), tensor);
      noise.Fill(values, 0.3F);
      for (size_t i = 0; tensor.is_vector && i < values.size(); ++i) {
        values[i] += 1;
      }
    }
    for (int32_t i = 0; i < kRows; ++i) {
      tokens.push_back(i * 31 % 7);
      targets.push_back(static_cast<int32_t>(i * 1717 % params.vocab_size));
      row_weight.push_back(i % 4 == 0 ? 0.0F : 0.1F);
    }
  }
  Rows rows() const { return {tokens, targets, row_weight, kDocuments}; }

  ModelParams params;
  FullStore store;
  std::unique_ptr<WeightSource> weights;
  LoraStore none;
  Transformer model;
  std::vector<int32_t> tokens, targets;
  std::vector<float> row_weight;
};

// The loss in float64, its leaves the store's weights.
at::Tensor Oracle(FullModel& m, const testing::WeightLeaves& leaves) {
  const HeadWeights& head = m.weights->head();
  at::Tensor x =
      at::index_select(leaves.at(head.embeddings.data.data), 0, at::tensor(m.tokens, at::kInt));
  for (int64_t layer = 0; layer < m.params.n_layers; ++layer) {
    const BlockLease block = m.weights->Acquire(layer, Phase::kForward);
    x = testing::BlockOracle(m.params, *block, {}, 1, x, kDocuments, leaves);
  }
  std::vector<int32_t> index;
  std::vector<int32_t> target;
  std::vector<float> weight;
  for (size_t i = 0; i < m.row_weight.size(); ++i) {
    if (m.row_weight[i] != 0) {
      index.push_back(static_cast<int32_t>(i));
      target.push_back(m.targets[i]);
      weight.push_back(m.row_weight[i]);
    }
  }
  return testing::LossOracle(head, m.params.norm_eps, x, {index, target, weight}, leaves);
}

class FullGradient : public ::testing::TestWithParam<FullCase> {};

TEST_P(FullGradient, IsThatOfAutograd) {
  FullModel m(GetParam());
  testing::WeightLeaves leaves;
  for (const ParamStore::Tensor& tensor : m.store.tensors()) {
    float* data = ParamStore::Part(m.store.master(), tensor).data();
    leaves[data] = testing::Leaf(MatrixView(data, tensor.rows, tensor.cols));
  }
  const at::Tensor expected = Oracle(m, leaves);
  expected.backward();
  EXPECT_NEAR(m.model.ForwardBackward(m.rows()) / expected.item<double>(), 1, 1e-6);
  EXPECT_EQ(m.store.tensors().size(), ModelTensors(m.params).size());
  for (const ParamStore::Tensor& tensor : m.store.tensors()) {
    const std::vector<float> gradient =
        testing::ToFloats(leaves.at(ParamStore::Part(m.store.master(), tensor).data()).grad());
    const std::span<const float> actual = ParamStore::Part(m.store.grad(), tensor);
    double error = 0;
    double scale = 1e-30;
    for (size_t i = 0; i < gradient.size(); ++i) {
      error = std::max(error, std::abs(static_cast<double>(actual[i]) - gradient[i]));
      scale = std::max(scale, std::abs(static_cast<double>(gradient[i])));
    }
    EXPECT_GT(scale, 1e-6) << tensor.name;
    EXPECT_LT(error, 2e-5 * scale) << tensor.name;
  }
}

TEST_P(FullGradient, IsTheSameWhateverIsRecomputedAndAddsUp) {
  FullModel kept(GetParam());
  kept.model.ForwardBackward(kept.rows());
  const std::vector<float> once(kept.store.grad().begin(), kept.store.grad().end());
  for (const RecomputePolicy policy : {RecomputePolicy::kMlp, RecomputePolicy::kBlock}) {
    FullModel m(GetParam(), policy);
    m.model.ForwardBackward(m.rows());
    EXPECT_EQ(once, std::vector<float>(m.store.grad().begin(), m.store.grad().end()));
  }
  kept.model.ForwardBackward(kept.rows());
  for (size_t i = 0; i < once.size(); ++i) {
    ASSERT_NEAR(kept.store.grad()[i], 2 * once[i], 1e-5 * std::abs(once[i]) + 1e-6) << i;
  }
}

// (loss(w + s d) - loss(w - s d)) / 2s is the gradient along d, here the gradient itself.
// Of the experts all are chosen: where a difference changes the choice, there is no gradient.
class FullDifferences : public FullGradient {};

TEST_P(FullDifferences, AreAlongTheGradient) {
  FullModel m(GetParam());
  const double loss = m.model.ForwardBackward(m.rows());
  EXPECT_DOUBLE_EQ(loss, m.model.Loss(m.rows()));
  const std::vector<float> start(m.store.master().begin(), m.store.master().end());
  for (const ParamStore::Tensor& tensor : m.store.tensors()) {
    const std::span<float> values = ParamStore::Part(m.store.master(), tensor);
    const std::span<const float> gradient = ParamStore::Part(m.store.grad(), tensor);
    double along = 0;
    for (const float g : gradient) {
      along += static_cast<double>(g) * g;
    }
    const double step = 4e-3 / std::sqrt(along);
    std::array<double, 2> losses{};
    for (const size_t side : {0, 1}) {
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(start[static_cast<size_t>(tensor.offset) + i] +
                                       (side == 0 ? step : -step) * gradient[i]);
      }
      losses[side] = m.model.Loss(m.rows());
    }
    std::copy(start.begin(), start.end(), m.store.master().begin());
    EXPECT_NEAR((losses[0] - losses[1]) / (2 * step) / along, 1, 5e-3) << tensor.name;
  }
}

const std::vector<FullCase> kCases = {{"GroupedHeads", 4, 2, 8},
                                      {"WideHeads", 3, 1, 24},
                                      {"BlocksOfTheVocabulary", 4, 4, 8, 5000},
                                      {"Tied", 4, 2, 8, 96, std::nullopt, true},
                                      {"EveryExpert", 4, 2, 8, 96, MoeParams{3, 3}}};

INSTANTIATE_TEST_SUITE_P(Models, FullGradient, ::testing::ValuesIn(kCases), [](const auto& run) {
  return run.param.name;
});
INSTANTIATE_TEST_SUITE_P(Routed,
                         FullGradient,
                         ::testing::Values(FullCase{"Experts", 4, 2, 8, 96, MoeParams{4, 2}}),
                         [](const auto& run) { return run.param.name; });
INSTANTIATE_TEST_SUITE_P(Models, FullDifferences, ::testing::ValuesIn(kCases), [](const auto& run) {
  return run.param.name;
});

}  // namespace
}  // namespace mft
