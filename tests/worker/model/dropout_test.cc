// SPDX-License-Identifier: Apache-2.0
#include "worker/model/dropout.h"

#include <array>
#include <cmath>
#include <optional>

#include <gtest/gtest.h>

#include "tests/worker/model/random_weights.h"
#include "worker/model/transformer.h"

namespace mft {
namespace {

using testing::Noise;
using testing::RandomWeights;

const std::vector<std::string> kAll = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};

ModelParams Params(std::optional<MoeParams> moe) {
  return {.dim = 32,
          .n_layers = 2,
          .head_dim = 24,
          .hidden_dim = 44,
          .n_heads = 2,
          .n_kv_heads = 1,
          .vocab_size = 96,
          .moe = moe};
}

// One chunk of documents of two packs.
struct Data {
  std::vector<int32_t> cu_seqlens, tokens, targets, pack_row;
  std::vector<int64_t> pack;
  std::vector<float> row_weight;

  explicit Data(std::vector<int32_t> offsets) : cu_seqlens(std::move(offsets)) {
    const auto rows = static_cast<size_t>(cu_seqlens.back());
    for (size_t i = 0; i < rows; ++i) {
      tokens.push_back(static_cast<int32_t>(i * 31 % 96));
      targets.push_back(static_cast<int32_t>(i * 17 % 96));
      row_weight.push_back(i % 4 == 0 ? 0.0F : 2.0F / static_cast<float>(rows));
    }
    for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
      pack.push_back(s < 2 ? 7 : 8);
      pack_row.push_back(s < 2 ? cu_seqlens[s] : cu_seqlens[s] - cu_seqlens[2]);
    }
  }
  Rows rows(int64_t step) const {
    return {tokens, targets, row_weight, cu_seqlens, pack, pack_row, step};
  }
};

struct Model {
  RandomWeights weights;
  LoraStore store;
  Transformer transformer;

  Model(double dropout,
        int64_t max_rows,
        RecomputePolicy policy = RecomputePolicy::kBlock,
        uint64_t seed = 3,
        std::optional<MoeParams> moe = std::nullopt)
      : weights(Params(moe), 0.3F),
        store(Params(moe), {.rank = 4, .scaling = 1.5, .target_modules = kAll}),
        transformer(weights,
                    store,
                    CpuKernels(),
                    {.policy = policy,
                     .max_rows = max_rows,
                     .max_positions = max_rows,
                     .dropout = dropout,
                     .seed = seed}) {
    Noise noise(11);
    noise.Fill(store.master(), 0.3F);
  }
  std::vector<float> Gradient(const Rows& rows) {
    store.ZeroGrad();
    transformer.ForwardBackward(rows);
    return {store.grad().begin(), store.grad().end()};
  }
};

// Dense, and a mixture of experts; all of them chosen where a difference must not change the
// choice.
class DropoutOfModels : public ::testing::TestWithParam<std::optional<MoeParams>> {};

INSTANTIATE_TEST_SUITE_P(Models,
                         DropoutOfModels,
                         ::testing::Values(std::nullopt, MoeParams{3, 3}),
                         [](const auto& moe) { return moe.param ? "Experts" : "Dense"; });

TEST_P(DropoutOfModels, GradientIsThatOfFiniteDifferences) {
  const Data data({0, 5, 6, 23});
  Model model(0.4, 23, RecomputePolicy::kBlock, 3, GetParam());
  const std::vector<float> grad = model.Gradient(data.rows(9));
  const std::vector<float> start(model.store.master().begin(), model.store.master().end());
  for (const LoraStore::Tensor& tensor : model.store.tensors()) {
    const auto from = static_cast<size_t>(tensor.offset);
    const auto count = static_cast<size_t>(tensor.rows * tensor.cols);
    double along = 0;
    for (size_t i = from; i < from + count; ++i) {
      along += static_cast<double>(grad[i]) * grad[i];
    }
    const double step = 1e-2 / std::sqrt(along);
    std::array<double, 2> losses{};
    for (const size_t side : {0, 1}) {
      for (size_t i = from; i < from + count; ++i) {
        model.store.master()[i] =
            static_cast<float>(start[i] + (side == 0 ? step : -step) * grad[i]);
      }
      losses[side] = model.transformer.ForwardBackward(data.rows(9));
    }
    std::copy(start.begin(), start.end(), model.store.master().begin());
    EXPECT_NEAR((losses[0] - losses[1]) / (2 * step) / along, 1, 5e-3) << tensor.name;
  }
}

TEST_P(DropoutOfModels, MasksAreTheSameWhateverIsKeptAndInEveryTile) {
  const Data data({0, 300, 450, 900, 1400, 1500});
  std::vector<std::vector<float>> grads;
  for (const auto policy :
       {RecomputePolicy::kNothing, RecomputePolicy::kMlp, RecomputePolicy::kBlock}) {
    Model model(0.25, 1500, policy, 3, GetParam());
    grads.push_back(model.Gradient(data.rows(2)));
  }
  EXPECT_EQ(grads[0], grads[1]);
  EXPECT_EQ(grads[0], grads[2]);
}

// A document a call, in another order: other sums of the same terms.
TEST_P(DropoutOfModels, MasksDoNotDependOnChunks) {
  const Data data({0, 9, 30, 41, 64});
  Model whole(0.25, 64, RecomputePolicy::kBlock, 3, GetParam());
  const std::vector<float> expected = whole.Gradient(data.rows(5));
  Model single(0.25, 64, RecomputePolicy::kBlock, 3, GetParam());
  single.store.ZeroGrad();
  for (const size_t s : {3, 0, 2, 1}) {
    const auto first = static_cast<size_t>(data.cu_seqlens[s]);
    const auto rows = static_cast<size_t>(data.cu_seqlens[s + 1]) - first;
    const std::array<int32_t, 2> cu_seqlens = {0, static_cast<int32_t>(rows)};
    single.transformer.ForwardBackward({std::span(data.tokens).subspan(first, rows),
                                        std::span(data.targets).subspan(first, rows),
                                        std::span(data.row_weight).subspan(first, rows),
                                        cu_seqlens,
                                        std::span(data.pack).subspan(s, 1),
                                        std::span(data.pack_row).subspan(s, 1),
                                        5});
  }
  double difference = 0;
  double scale = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference =
        std::max(difference, std::abs(static_cast<double>(expected[i]) - single.store.grad()[i]));
    scale = std::max(scale, std::abs(static_cast<double>(expected[i])));
  }
  EXPECT_LT(difference, 1e-5 * scale);
}

TEST(Dropout, EveryExpertHasItsOwnMask) {
  const std::vector<float> ones(64, 1);
  std::vector<float> scratch(64);
  const std::vector<int64_t> pack = {3};
  const std::vector<int32_t> row = {5};
  const auto dropped = [&](int64_t expert) {
    const Dropout dropout{.probability = 0.5,
                          .expert = expert,
                          .pack = pack.data(),
                          .row = row.data(),
                          .scratch = MatrixView(scratch.data(), 1, 64)};
    const InputDropout at(CpuKernels(), dropout, DropoutSite::kGateUp, 0);
    at.Dropped(MatrixView(const_cast<float*>(ones.data()), 1, 64), 0, 1);
    return scratch;
  };
  EXPECT_EQ(dropped(0), dropped(0));
  EXPECT_NE(dropped(0), dropped(1));
  EXPECT_NE(dropped(0), dropped(-1));
}

TEST(Dropout, StepSeedAndPackChangeTheMasks) {
  Data data({0, 9, 30});
  Model model(0.25, 30);
  const auto first = model.Gradient(data.rows(1));
  EXPECT_EQ(first, model.Gradient(data.rows(1)));
  EXPECT_NE(first, model.Gradient(data.rows(2)));
  EXPECT_NE(first, Model(0.25, 30, RecomputePolicy::kBlock, 4).Gradient(data.rows(1)));
  data.pack[0] = 6;
  EXPECT_NE(first, model.Gradient(data.rows(1)));
}

TEST(Dropout, EvaluationDropsNothingAndZeroIsNone) {
  const Data data({0, 9, 30});
  Model dropping(0.5, 30);
  Model plain(0, 30);
  EXPECT_EQ(dropping.transformer.Loss(data.rows(1)), plain.transformer.Loss(data.rows(1)));
  EXPECT_NE(dropping.Gradient(data.rows(1)), plain.Gradient(data.rows(1)));
  EXPECT_EQ(dropping.transformer.Loss(data.rows(1)), plain.transformer.Loss(data.rows(1)));
  // Without dropout nobody has to say where a row comes from.
  EXPECT_EQ(plain.Gradient(data.rows(1)),
            plain.Gradient({data.tokens, data.targets, data.row_weight, data.cu_seqlens}));
  EXPECT_THROW(dropping.transformer.ForwardBackward(
                   {data.tokens, data.targets, data.row_weight, data.cu_seqlens}),
               std::invalid_argument);
}

TEST(Dropout, DropsItsShareAndKeepsTheMean) {
  constexpr int64_t kRows = 64;
  constexpr int64_t kCols = 1001;  // no multiple of what is drawn at once
  std::vector<float> ones(kRows * kCols, 1);
  std::vector<float> out(ones.size(), 5);
  std::vector<int64_t> pack(kRows, (int64_t{1} << 40) + 3);
  std::vector<int32_t> row(kRows);
  for (size_t i = 0; i < row.size(); ++i) {
    row[i] = static_cast<int32_t>(i);
  }
  const DropoutMask mask{.key = 99, .probability = 0.1, .pack = pack.data(), .row = row.data()};
  const KernelTable& kernels = CpuKernels();
  kernels.dropout(
      MatrixView(out.data(), kRows, kCols), MatrixView(ones.data(), kRows, kCols), mask, false);
  double dropped = 0;
  for (const float value : out) {
    EXPECT_TRUE(value == 0 || value == 1 / 0.9F) << value;
    dropped += value == 0 ? 1 : 0;
  }
  const double total = kRows * kCols;
  EXPECT_NEAR(dropped / total, 0.1, 4 * std::sqrt(0.09 / total));
  // Adding is the same mask; every instruction set makes it.
  for (const char* set : {"avx512", "avx2", "baseline"}) {
    if (const KernelTable* table = CpuKernelsFor(set)) {
      std::vector<float> added(out.size(), 1);
      table->dropout(MatrixView(added.data(), kRows, kCols),
                     MatrixView(ones.data(), kRows, kCols),
                     mask,
                     true);
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(added[i], 1 + out[i]) << set << " " << i;
      }
    }
  }
}

}  // namespace
}  // namespace mft
