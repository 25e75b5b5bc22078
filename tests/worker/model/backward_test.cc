// SPDX-License-Identifier: Apache-2.0
// Explicit backward passes against autograd in float64, and of the whole model against finite
// differences of its loss.
#include <array>
#include <cmath>
#include <optional>

#include <gtest/gtest.h>

#include "tests/worker/model/autograd_oracle.h"
#include "tests/worker/model/random_weights.h"
#include "worker/model/rotary.h"
#include "worker/model/transformer.h"

namespace mft {
namespace {

using testing::Noise;
using testing::RandomWeights;

constexpr double kTolerance = 1e-5;

double RelativeError(std::span<const float> actual, const at::Tensor& expected) {
  const std::vector<float> values = testing::ToFloats(expected);
  double error = 0;
  double scale = 1e-30;
  for (size_t i = 0; i < values.size(); ++i) {
    error = std::max(error, std::abs(static_cast<double>(actual[i]) - values[i]));
    scale = std::max(scale, std::abs(static_cast<double>(values[i])));
  }
  return values.size() == actual.size() && !std::isnan(error) ? error / scale : INFINITY;
}

ModelParams Params(int64_t heads,
                   int64_t kv_heads,
                   int64_t head_dim,
                   std::optional<MoeParams> moe = std::nullopt) {
  ModelParams params;
  params.dim = 32;
  params.n_layers = 2;
  params.n_heads = heads;
  params.n_kv_heads = kv_heads;
  params.head_dim = head_dim;
  params.hidden_dim = 44;
  params.vocab_size = 96;
  params.rope_theta = 1e4;
  params.moe = moe;
  return params;
}

const std::vector<int32_t> kDocuments = {0, 5, 6, 23};
constexpr int64_t kRows = 23;
constexpr int64_t kMlpRows = 9;

// Memory of one block's slots and scratch, all kept; scratch shared as block.h says.
class BlockMemory {
 public:
  BlockMemory(const ModelParams& p, const LoraColumns& inner)
      : arena_(1 << 20), routing_(p.moe.value_or(MoeParams{}), kMlpRows) {
    const int64_t visits = ExpertsPerToken(p);
    const int64_t experts = p.moe ? p.moe->num_experts : 0;
    const int64_t q = p.n_heads * p.head_dim;
    const int64_t kv = p.n_kv_heads * p.head_dim;
    saved = {.input = Take(p.dim),
             .q = Take(q),
             .k = Take(kv),
             .v = Take(kv),
             .attention = Take(q),
             .lse = Take(p.n_heads),
             .residual = Take(p.dim),
             .gate = arena_.Take(kRows * visits, p.hidden_dim),
             .up = arena_.Take(kRows * visits, p.hidden_dim),
             .lora_inner = Take(inner.per_row),
             .expert_inner = arena_.Take(kRows * visits, inner.per_expert)};
    const View first = Take(std::max(p.dim, q));
    const View second = Take(std::max(p.dim, q));
    scratch = {.norm = first.Cols(0, p.dim),
               .dq = first.Cols(0, q),
               .d_attention = second.Cols(0, q),
               .late_norm = second.Cols(0, p.dim),
               .dk = Take(kv),
               .dv = Take(kv),
               .d_inner = Take(inner.per_row),
               .act = arena_.Take(kMlpRows, p.hidden_dim),
               .expert_rows = arena_.Take(kMlpRows, p.dim),
               .router = arena_.Take(kMlpRows, experts),
               .d_expert_inner = arena_.Take(kMlpRows, inner.per_expert),
               .routing = &routing_};
    out = Take(p.dim);
    dx = Take(p.dim);
  }
  Saved saved;
  BlockScratch scratch;
  View out, dx;

 private:
  View Take(int64_t cols) { return arena_.Take(kRows, cols); }
  Arena arena_;
  Routing routing_;
};

std::span<float> Values(View view) {
  return {view.f32(), static_cast<size_t>(view.rows * view.cols)};
}

struct BlockCase {
  const char* name;
  int64_t heads, kv_heads, head_dim;
  std::vector<std::string> modules;
  std::optional<MoeParams> moe = std::nullopt;
};

class BlockBackwardTest : public ::testing::TestWithParam<BlockCase> {};

TEST_P(BlockBackwardTest, IsThatOfAutograd) {
  const BlockCase& c = GetParam();
  const ModelParams params = Params(c.heads, c.kv_heads, c.head_dim, c.moe);
  RandomWeights weights(params, 0.3F);
  LoraStore store(params, {.rank = 4, .scaling = 1.5, .target_modules = c.modules});
  Noise noise(7);
  noise.Fill(store.master(), 0.3F);
  BlockMemory memory(params, store.inner_cols());
  noise.Fill(Values(memory.saved.input), 1.0F);
  std::vector<int32_t> position;
  for (size_t s = 0; s + 1 < kDocuments.size(); ++s) {
    for (int32_t i = kDocuments[s]; i < kDocuments[s + 1]; ++i) {
      position.push_back(i - kDocuments[s]);
    }
  }
  const std::vector<float> table = RotaryTable(params, kRows);
  const BlockContext context{.kernels = CpuKernels(),
                             .params = params,
                             .attention = {.heads = c.heads,
                                           .kv_heads = c.kv_heads,
                                           .head_dim = c.head_dim,
                                           .cu_q = kDocuments,
                                           .cu_k = kDocuments},
                             .position = position.data(),
                             .rotary_table = table.data(),
                             .scratch = memory.scratch};
  const BlockLease lease = weights.Acquire(0, Phase::kForward);
  const at::Tensor x = testing::Leaf(memory.saved.input);
  const testing::AdapterLeaves leaves = testing::LeavesOf(store, 0);
  const at::Tensor expected = testing::BlockOracle(params, *lease, leaves, 1.5, x, kDocuments);

  BlockForward(context, *lease, store.block(0), memory.saved, memory.out);
  EXPECT_LT(RelativeError(Values(memory.out), expected), kTolerance);

  noise.Fill(Values(memory.dx), 1.0F);
  expected.backward(testing::ToTensor(memory.dx));
  BlockBackward(context, *lease, store.block(0), memory.saved, memory.dx, true);
  EXPECT_LT(RelativeError(Values(memory.dx), x.grad()), kTolerance);
  size_t compared = 0;
  const std::string prefix = "layers.0.";
  for (const LoraStore::Tensor& tensor : store.tensors()) {
    const std::span<const float> grad = store.grad().subspan(
        static_cast<size_t>(tensor.offset), static_cast<size_t>(tensor.rows * tensor.cols));
    for (const auto& [name, leaf] : leaves) {
      if (tensor.name == prefix + "attention." + name ||
          tensor.name == prefix + "feed_forward." + name) {
        EXPECT_LT(RelativeError(grad, leaf.grad()), kTolerance) << tensor.name;
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, leaves.size());
  EXPECT_EQ(compared, LoraTensors(params, 4, c.modules).size() / 2);  // of one of two layers
}

const std::vector<std::string> kAll = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};

INSTANTIATE_TEST_SUITE_P(
    Shapes,
    BlockBackwardTest,
    ::testing::Values(BlockCase{"GroupedHeads", 4, 2, 8, kAll},
                      BlockCase{"WideHeads", 3, 1, 24, kAll},
                      BlockCase{"AttentionOnly", 4, 4, 8, {"wq", "wv"}},
                      BlockCase{"MlpOnly", 4, 2, 8, {"w2", "w3"}},
                      BlockCase{"OutputsOnly", 4, 2, 8, {"wo", "w1"}},
                      BlockCase{"NoAdapter", 4, 2, 8, {}},
                      BlockCase{"Experts", 4, 2, 8, kAll, MoeParams{4, 2}},
                      BlockCase{"OneExpertOfMany", 4, 2, 8, kAll, MoeParams{7, 1}},
                      BlockCase{"EveryExpert", 4, 2, 8, kAll, MoeParams{3, 3}},
                      BlockCase{"ExpertsOutputs", 4, 2, 8, {"w2"}, MoeParams{5, 2}},
                      BlockCase{"ExpertsInputs", 4, 2, 8, {"wq", "w1"}, MoeParams{5, 3}},
                      BlockCase{"ExpertsFrozen", 4, 2, 8, {"wv"}, MoeParams{4, 2}}),
    [](const auto& shape) { return shape.param.name; });

TEST(HeadLoss, IsThatOfAutogradForEveryChunking) {
  const ModelParams params = Params(4, 2, 8);
  const RandomWeights weights(params, 0.3F);
  Noise noise(3);
  std::vector<float> hidden(static_cast<size_t>(kRows * params.dim));
  noise.Fill(hidden, 1.0F);
  const View h = MatrixView(hidden.data(), kRows, params.dim);
  const std::vector<int32_t> index = {1, 2, 7, 8, 22};
  const std::vector<int32_t> target = {0, 95, 40, 41, 3};
  const std::vector<float> weight = {0.2F, 0.1F, 0.5F, 0.2F, 1.0F};
  const LossRows rows{index, target, weight};
  const at::Tensor leaf = testing::Leaf(h);
  const at::Tensor expected = testing::LossOracle(weights.head(), params.norm_eps, leaf, rows);
  expected.backward();
  // Rows and columns of a chunk: all at once, and with parts left over.
  for (const auto& [chunk, columns] :
       {std::pair(1, 96), std::pair(2, 95), std::pair(5, 7), std::pair(64, 41), std::pair(3, 1)}) {
    Arena arena(1 << 20);
    std::vector<SoftmaxState> state(static_cast<size_t>(chunk));
    double sum = 0;
    const LossScratch scratch{.hidden = arena.Take(chunk, params.dim),
                              .norm = arena.Take(chunk, params.dim),
                              .sums = arena.Take(chunk, params.dim),
                              .logits = arena.Take(chunk, columns),
                              .state = state.data(),
                              .factors = arena.Take(2, chunk),
                              .sum = &sum};
    const auto eps = static_cast<float>(params.norm_eps);
    HeadLoss(CpuKernels(), weights.head(), eps, h, rows, scratch);
    const double forward = sum;
    EXPECT_NEAR(forward / expected.item<double>(), 1, 1e-6) << chunk;
    std::vector<float> stream = hidden;  // in: hidden; out: its gradient
    const View d = MatrixView(stream.data(), kRows, params.dim);
    sum = 0;
    HeadLossBackward(CpuKernels(), weights.head(), eps, d, rows, scratch);
    EXPECT_EQ(forward, sum) << chunk;
    EXPECT_LT(RelativeError(stream, leaf.grad()), kTolerance) << chunk;
  }
}

// (loss(w + s d) - loss(w - s d)) / 2s is the gradient along d, for directions that touch one kind
// of tensor at a time.
// Of the experts all are chosen: where a difference changes the choice, there is no gradient. (The
// choice itself: the blocks above, and FirstStep in fixture_test.cc.)
class Gradient : public ::testing::TestWithParam<std::optional<MoeParams>> {};

TEST_P(Gradient, OfTheWholeModelIsThatOfFiniteDifferences) {
  const ModelParams params = Params(4, 2, 8, GetParam());
  RandomWeights weights(params, 0.3F);
  LoraStore store(params, {.rank = 4, .scaling = 1.5, .target_modules = kAll});
  Noise noise(11);
  noise.Fill(store.master(), 0.3F);
  Transformer model(weights, store, CpuKernels(), {.max_rows = kRows, .max_positions = kRows});
  std::vector<int32_t> tokens(kRows);
  std::vector<int32_t> targets(kRows);
  std::vector<float> row_weight(kRows);
  for (int32_t i = 0; i < kRows; ++i) {
    tokens[static_cast<size_t>(i)] = i * 31 % 96;
    targets[static_cast<size_t>(i)] = i * 17 % 96;
    row_weight[static_cast<size_t>(i)] = i % 4 == 0 ? 0.0F : 0.1F;
  }
  const Rows rows{tokens, targets, row_weight, kDocuments};
  const double loss = model.ForwardBackward(rows);
  EXPECT_DOUBLE_EQ(loss, model.Loss(rows));
  const std::vector<float> start(store.master().begin(), store.master().end());
  for (const LoraStore::Tensor& tensor : store.tensors()) {
    const auto from = static_cast<size_t>(tensor.offset);
    const auto count = static_cast<size_t>(tensor.rows * tensor.cols);
    // Along the gradient itself the difference is largest, so rounding matters least.
    double along = 0;
    for (size_t i = from; i < from + count; ++i) {
      along += static_cast<double>(store.grad()[i]) * store.grad()[i];
    }
    const double step = 1e-2 / std::sqrt(along);
    std::array<double, 2> losses{};
    for (const size_t side : {0, 1}) {
      const double signed_step = side == 0 ? step : -step;
      for (size_t i = from; i < from + count; ++i) {
        store.master()[i] = static_cast<float>(start[i] + signed_step * store.grad()[i]);
      }
      losses[side] = model.Loss(rows);
    }
    std::copy(start.begin(), start.end(), store.master().begin());
    EXPECT_NEAR((losses[0] - losses[1]) / (2 * step) / along, 1, 5e-3) << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models,
                         Gradient,
                         ::testing::Values(std::nullopt, MoeParams{3, 3}),
                         [](const auto& moe) { return moe.param ? "Experts" : "Dense"; });

}  // namespace
}  // namespace mft
