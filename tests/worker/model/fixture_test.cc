// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <optional>

#include <gtest/gtest.h>

#include "tests/worker/model/fixture_model.h"
#include "tests/worker/model/random_weights.h"

namespace mft {
namespace {

using testing::BatchOf;
using testing::FixtureBatch;
using testing::FixtureModel;

using testing::ExpectNear;

class Activations : public ::testing::TestWithParam<const char*> {};

TEST_P(Activations, AreThoseOfTheReference) {
  FixtureModel fixture(GetParam());
  const auto expected = SafetensorsFile::Open(fixture.dir + "/activations.safetensors").value();
  const FixtureBatch batch = BatchOf(testing::ReadJsonLines(fixture.dir + "/batches.jsonl")[0]);
  const auto rows = static_cast<int64_t>(batch.x.size());
  const ModelParams& params = fixture.weights->params();
  std::vector<float> logits(static_cast<size_t>(rows * params.vocab_size));
  fixture.model->AllLogits(batch.x, batch.cu_seqlens, logits);
  for (int64_t layer = 0; layer < params.n_layers; ++layer) {
    const View hidden = fixture.model->Hidden(layer + 1);
    ExpectNear({hidden.f32(), static_cast<size_t>(rows * params.dim)},
               testing::FloatsOf(*expected->Find("block." + std::to_string(layer))),
               1e-4,
               "block " + std::to_string(layer));
  }
  ExpectNear(logits, testing::FloatsOf(*expected->Find("logits")), 1e-4, "logits");
}

INSTANTIATE_TEST_SUITE_P(Fixtures,
                         Activations,
                         ::testing::Values("dense", "extended/dense-tiny", "extended/moe-tiny"));

struct GradCase {
  const char* folder;
  const char* loss_norm;
  RecomputePolicy policy;
};

class FirstStep : public ::testing::TestWithParam<GradCase> {};

TEST_P(FirstStep, LossAndGradientsAreThoseOfTheReference) {
  FixtureModel fixture(GetParam().folder, {.policy = GetParam().policy});
  const std::string norm = GetParam().loss_norm;
  const Json config = Json::parse(std::ifstream(fixture.dir + "/config.json"));
  const auto lines = testing::ReadJsonLines(fixture.dir + "/batches.jsonl");
  const Json expected = testing::ReadJsonLines(fixture.dir + "/expected." + norm + ".jsonl")[0];
  std::vector<FixtureBatch> micro;
  for (size_t i = 0; i < config["num_microbatches"].get<size_t>(); ++i) {
    micro.push_back(BatchOf(lines[i]));
  }
  testing::Normalise(micro, norm == "token");
  double loss = 0;
  for (const FixtureBatch& batch : micro) {
    loss += fixture.model->ForwardBackward(batch.rows());
  }
  EXPECT_NEAR(loss / expected["loss"].get<double>(), 1, 2e-6);
  double squares = 0;
  for (const float g : fixture.store->grad()) {
    squares += static_cast<double>(g) * g;
  }
  EXPECT_NEAR(std::sqrt(squares) / expected["grad_norm"].get<double>(), 1, 2e-5);
  const std::string path = fixture.dir + "/grads_step1." + norm + ".safetensors";
  if (!std::ifstream(path).good()) {
    return;  // the first family has no gradients
  }
  const auto grads = SafetensorsFile::Open(path).value();
  for (const LoraStore::Tensor& tensor : fixture.store->tensors()) {
    ExpectNear(fixture.store->grad().subspan(static_cast<size_t>(tensor.offset),
                                             static_cast<size_t>(tensor.rows * tensor.cols)),
               testing::FloatsOf(*grads->Find(tensor.name)),
               1e-5,
               tensor.name);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures,
    FirstStep,
    ::testing::Values(GradCase{"dense", "token", RecomputePolicy::kNothing},
                      GradCase{"dense", "reference", RecomputePolicy::kBlock},
                      GradCase{"extended/dense-tiny", "token", RecomputePolicy::kNothing},
                      GradCase{"extended/dense-tiny", "reference", RecomputePolicy::kMlp},
                      GradCase{"extended/dense-headdim", "token", RecomputePolicy::kBlock},
                      GradCase{"extended/dense-headdim", "reference", RecomputePolicy::kNothing},
                      GradCase{"extended/empty-microbatch", "token", RecomputePolicy::kNothing},
                      GradCase{"moe", "token", RecomputePolicy::kNothing},
                      GradCase{"moe", "reference", RecomputePolicy::kBlock},
                      GradCase{"extended/moe-tiny", "token", RecomputePolicy::kMlp},
                      GradCase{"extended/moe-tiny", "reference", RecomputePolicy::kNothing},
                      GradCase{"extended/moe-tiny", "token", RecomputePolicy::kBlock}));

class Recompute : public ::testing::TestWithParam<const char*> {};

TEST_P(Recompute, PoliciesGiveTheSameGradientsBitwise) {
  for (const KernelTable* kernels : testing::Precisions()) {
    SCOPED_TRACE(kernels->name);
    std::vector<std::vector<float>> grads;
    for (const RecomputePlan& policy : std::vector<RecomputePlan>{RecomputePolicy::kNothing,
                                                                  RecomputePolicy::kMlp,
                                                                  RecomputePolicy::kBlock,
                                                                  {RecomputePolicy::kNothing, 1},
                                                                  {RecomputePolicy::kMlp, 1}}) {
      FixtureModel fixture(GetParam(), {.policy = policy}, *kernels);
      ASSERT_GT(fixture.weights->params().n_layers, 1);
      const FixtureBatch batch = BatchOf(testing::ReadJsonLines(fixture.dir + "/batches.jsonl")[0]);
      fixture.model->ForwardBackward(batch.rows());
      grads.emplace_back(fixture.store->grad().begin(), fixture.store->grad().end());
    }
    for (const std::vector<float>& grad : grads) {
      EXPECT_EQ(grad, grads[0]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures,
                         Recompute,
                         ::testing::Values("extended/dense-tiny", "extended/moe-tiny"));

struct TilesCase {
  const char* name;
  std::optional<MoeParams> moe;
  std::string_view bf16_set;  // none: fp32
  const KernelTable* kernels() const {
    return bf16_set.empty() ? &CpuKernels() : CpuKernelsFor(bf16_set);
  }
};

class Tiles : public ::testing::TestWithParam<TilesCase> {};

// Several tiles and several pieces of an MLP, a document longer than a target tile among short
// ones.
TEST_P(Tiles, GiveTheSameGradientsWhateverIsKept) {
  const KernelTable* kernels = GetParam().kernels();
  if (kernels == nullptr) {
    GTEST_SKIP() << "no " << GetParam().bf16_set << " here";
  }
  constexpr int32_t kRows = 1900;
  const ModelParams params{.dim = 32,
                           .n_layers = 2,
                           .head_dim = 24,
                           .hidden_dim = 44,
                           .n_heads = 2,
                           .n_kv_heads = 1,
                           .vocab_size = 96,
                           .moe = GetParam().moe};
  testing::RandomWeights weights(params, 0.3F);
  const std::vector<int32_t> documents = {0, 100, 450, 500, 1200, 1201, 1500, kRows};
  std::vector<int32_t> tokens(kRows);
  std::vector<float> row_weight(kRows, 0);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(i * 7 % 96);
    row_weight[i] = i % 3 == 0 ? 0 : 1.0F / kRows;
  }
  const auto gradient = [&](const RecomputePlan& policy, std::span<const int32_t> cut) {
    LoraStore store(params,
                    {.rank = 4, .target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"}});
    testing::Noise noise(7);
    noise.Fill(store.master(), 0.3F);
    Transformer model(
        weights, store, *kernels, {.policy = policy, .max_rows = kRows, .max_positions = 700});
    for (size_t c = 0; c + 1 < cut.size(); ++c) {  // the documents of one call
      const auto first = static_cast<size_t>(documents[static_cast<size_t>(cut[c])]);
      std::vector<int32_t> cu_seqlens;
      for (int32_t d = cut[c]; d <= cut[c + 1]; ++d) {
        cu_seqlens.push_back(documents[static_cast<size_t>(d)] - static_cast<int32_t>(first));
      }
      const auto rows = static_cast<size_t>(cu_seqlens.back());
      model.ForwardBackward({std::span(tokens).subspan(first, rows),
                             std::span(tokens).subspan(first, rows),
                             std::span(row_weight).subspan(first, rows),
                             cu_seqlens});
    }
    return std::vector<float>(store.grad().begin(), store.grad().end());
  };
  const std::vector<int32_t> whole = {0, 7};
  const auto kept = gradient(RecomputePolicy::kNothing, whole);
  EXPECT_EQ(kept, gradient(RecomputePolicy::kMlp, whole));
  EXPECT_EQ(kept, gradient(RecomputePolicy::kBlock, whole));
  EXPECT_EQ(kept, gradient({RecomputePolicy::kNothing, 1}, whole));
  EXPECT_EQ(kept, gradient({RecomputePolicy::kMlp, 1}, whole));
  // One document a call: other sums, and the document of one row is not rounded; the same value.
  const auto single =
      gradient(RecomputePolicy::kBlock, std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7});
  double difference = 0;
  double scale = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(kept[i]) - single[i]));
    scale = std::max(scale, std::abs(static_cast<double>(kept[i])));
  }
  EXPECT_LT(difference, (GetParam().bf16_set.empty() ? 1e-5 : 1e-2) * scale);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         Tiles,
                         ::testing::Values(TilesCase{"Dense", std::nullopt},
                                           TilesCase{"Experts", MoeParams{5, 2}},
                                           TilesCase{"DenseBf16", std::nullopt, "avx512-bf16"},
                                           TilesCase{"DenseAmx", std::nullopt, "avx512-amx-bf16"},
                                           TilesCase{"ExpertsBf16", MoeParams{5, 2}, "avx512-bf16"},
                                           TilesCase{
                                               "ExpertsAmx", MoeParams{5, 2}, "avx512-amx-bf16"}),
                         [](const auto& tiles) { return tiles.param.name; });

class Adapter : public ::testing::TestWithParam<const char*> {};

TEST_P(Adapter, WithBZeroChangesNothing) {
  for (const KernelTable* kernels : testing::Precisions()) {
    FixtureModel fixture(GetParam(), {}, *kernels);
    const FixtureBatch batch = BatchOf(testing::ReadJsonLines(fixture.dir + "/batches.jsonl")[0]);
    for (const LoraStore::Tensor& tensor : fixture.store->tensors()) {
      if (tensor.name.ends_with("lora_B.weight")) {
        std::memset(fixture.store->master().data() + tensor.offset,
                    0,
                    static_cast<size_t>(tensor.rows * tensor.cols) * sizeof(float));
      }
    }
    std::vector<float> adapted(batch.x.size() * 512);
    fixture.model->AllLogits(batch.x, batch.cu_seqlens, adapted);
    const LoraStore none(fixture.weights->params(), {.target_modules = {}, .training = false});
    Transformer base(*fixture.weights,
                     none,
                     *kernels,
                     {.max_rows = 512, .max_positions = 512, .training = false});
    std::vector<float> plain(adapted.size());
    base.AllLogits(batch.x, batch.cu_seqlens, plain);
    EXPECT_EQ(adapted, plain) << kernels->name;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Adapter, ::testing::Values("dense", "moe"));

class KvCache : public ::testing::TestWithParam<const char*> {};

TEST_P(KvCache, ExtendingTokenByTokenGivesTheLogitsOfOnePass) {
  FixtureModel fixture(GetParam());
  const std::vector<int32_t> tokens = {1, 5, 9, 200, 17, 3, 44, 12, 101};
  const auto vocab = static_cast<size_t>(fixture.weights->params().vocab_size);
  std::vector<float> all(tokens.size() * vocab);
  fixture.model->AllLogits(
      tokens, std::vector<int32_t>{0, static_cast<int32_t>(tokens.size())}, all);
  Transformer chat(*fixture.weights,
                   *fixture.store,
                   CpuKernels(),
                   {.max_rows = 16, .max_positions = 16, .training = false, .cache_rows = 16});
  std::vector<float> logits(vocab);
  const auto extend = [&](std::span<const int32_t> more) {
    const Transformer::Turn turn{0, more};
    chat.Extend({&turn, 1}, logits);
  };
  extend(std::span(tokens).first(4));
  ExpectNear(logits, std::span(all).subspan(3 * vocab, vocab), 2e-5, "prompt");
  for (size_t i = 4; i < tokens.size(); ++i) {
    extend(std::span(tokens).subspan(i, 1));
    ExpectNear(
        logits, std::span(all).subspan(i * vocab, vocab), 2e-5, "token " + std::to_string(i));
  }
  EXPECT_THROW(extend(std::vector<int32_t>(8, 1)), std::length_error);
}

TEST_P(KvCache, ConversationsBesideEachOtherGetTheirOwnLogits) {
  FixtureModel fixture(GetParam());
  const std::vector<std::vector<int32_t>> talks = {
      {1, 5, 9, 200, 17, 3, 44, 12, 101}, {1, 8, 8, 300, 2, 6, 31}, {1, 77, 4, 12, 250, 90, 3, 41}};
  const auto vocab = static_cast<size_t>(fixture.weights->params().vocab_size);
  const auto expect = [&](size_t talk, size_t tokens, std::span<const float> logits) {
    std::vector<float> all(tokens * vocab);
    fixture.model->AllLogits(std::span(talks[talk]).first(tokens),
                             std::vector<int32_t>{0, static_cast<int32_t>(tokens)},
                             all);
    ExpectNear(logits,
               std::span(all).last(vocab),
               2e-5,
               "conversation " + std::to_string(talk) + ", tokens " + std::to_string(tokens));
  };
  Transformer chat(
      *fixture.weights,
      *fixture.store,
      CpuKernels(),
      {.max_rows = 16, .max_positions = 9, .training = false, .cache_rows = 9, .conversations = 3});
  // Prompts of several lengths in one call, in another order than the conversations'.
  std::vector<float> logits(3 * vocab);
  std::vector<size_t> used = {4, 1, 3};
  chat.Extend(std::vector<Transformer::Turn>{{2, std::span(talks[2]).first(3)},
                                             {0, std::span(talks[0]).first(4)},
                                             {1, std::span(talks[1]).first(1)}},
              logits);
  expect(2, 3, std::span(logits).first(vocab));
  expect(0, 4, std::span(logits).subspan(vocab, vocab));
  expect(1, 1, std::span(logits).last(vocab));
  // A token each, as long as each lasts.
  for (int step = 0; step < 6; ++step) {
    std::vector<Transformer::Turn> turns;
    for (size_t talk = 0; talk < 3; ++talk) {
      if (used[talk] < talks[talk].size()) {
        turns.push_back(
            {static_cast<int64_t>(talk), std::span(talks[talk]).subspan(used[talk], 1)});
      }
    }
    if (turns.empty()) {
      break;
    }
    chat.Extend(turns, std::span(logits).first(turns.size() * vocab));
    for (size_t i = 0; i < turns.size(); ++i) {
      const auto talk = static_cast<size_t>(turns[i].conversation);
      expect(talk, ++used[talk], std::span(logits).subspan(i * vocab, vocab));
    }
  }
  EXPECT_EQ(used, (std::vector<size_t>{9, 7, 8}));
  const Transformer::Turn full{0, std::span(talks[0]).first(1)};
  EXPECT_THROW(chat.Extend({&full, 1}, logits), std::length_error);
  chat.ResetCache(0);
  const Transformer::Turn again{0, std::span(talks[0]).first(5)};
  chat.Extend({&again, 1}, logits);
  expect(0, 5, std::span(logits).first(vocab));
}

INSTANTIATE_TEST_SUITE_P(Fixtures,
                         KvCache,
                         ::testing::Values("extended/dense-headdim", "extended/moe-tiny"));

}  // namespace
}  // namespace mft
