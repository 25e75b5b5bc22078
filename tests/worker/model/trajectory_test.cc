// SPDX-License-Identifier: Apache-2.0
// Whole runs of the fixtures whose batches only exist as files: several ranks, whose microbatches
// one rank takes one after the other, since ranks only sum; and a microbatch without a trained
// token. Of a mixture of experts every tensor after every policy. (Runs of the worker itself:
// tests/worker/train.)
#include <cmath>

#include "tests/worker/model/fixture_model.h"
#include "worker/train/adamw.h"
#include "worker/train/grad_clip.h"
#include "worker/train/schedule.h"

namespace mft {
namespace {

using testing::FixtureBatch;
using testing::FixtureModel;

struct TrajectoryCase {
  const char* name;
  const char* folder;
  const char* loss_norm;
  RecomputePolicy policy;
};

class Trajectory : public ::testing::TestWithParam<TrajectoryCase> {
 protected:
  Trajectory()
      : fixture_(GetParam().folder, {.policy = GetParam().policy}),
        config_(Json::parse(std::ifstream(fixture_.dir + "/config.json"))),
        lines_(testing::ReadJsonLines(fixture_.dir + "/batches.jsonl")),
        init_(fixture_.store->master().begin(), fixture_.store->master().end()) {}

  // The microbatches of every rank, normalised.
  std::vector<FixtureBatch> BatchesOf(int64_t step) const {
    const auto micro = config_["num_microbatches"].get<int64_t>();
    std::vector<FixtureBatch> batches;
    for (const Json& line : lines_) {
      if (line["index"].get<int64_t>() / micro == step - 1) {
        batches.push_back(testing::BatchOf(line));
      }
    }
    testing::Normalise(batches, std::string(GetParam().loss_norm) == "token");
    return batches;
  }

  void Step(int64_t step, const Json& expected) {
    LoraStore& store = *fixture_.store;
    const StepRates rates = RatesAt({.peak_lr = config_["lr"].get<double>(),
                                     .total_steps = config_["max_steps"].get<int64_t>(),
                                     .pct_start = config_["pct_start"].get<double>()},
                                    step);
    store.ZeroGrad();
    double loss = 0;
    for (const FixtureBatch& batch : BatchesOf(step)) {
      loss += fixture_.model->ForwardBackward(batch.rows());
    }
    const double norm = std::sqrt(SumOfSquares(store.grad()));
    AdamWUpdate({store.master(), store.grad(), store.moment1(), store.moment2()},
                {.lr = rates.lr,
                 .beta1 = rates.beta1,
                 .weight_decay = config_["weight_decay"].get<double>(),
                 .grad_scale = ClipFactor(norm, config_["max_norm"].get<double>()),
                 .update = step});
    EXPECT_NEAR(loss / expected["loss"].get<double>(), 1, 2e-6);
    EXPECT_NEAR(norm / expected["grad_norm"].get<double>(), 1, 2e-5);
    EXPECT_NEAR(rates.lr / expected["lr"].get<double>(), 1, 1e-9);
    EXPECT_NEAR(rates.beta1 / expected["beta1"].get<double>(), 1, 1e-9);
  }

  FixtureModel fixture_;
  Json config_;
  std::vector<Json> lines_;
  std::vector<float> init_;
};

TEST_P(Trajectory, IsThatOfTheReference) {
  const std::string norm = GetParam().loss_norm;
  const auto expected = testing::ReadJsonLines(fixture_.dir + "/expected." + norm + ".jsonl");
  ASSERT_EQ(expected.size(), config_["max_steps"].get<size_t>());
  for (size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(::testing::Message() << "step " << i + 1);
    Step(static_cast<int64_t>(i) + 1, expected[i]);
  }
  const auto file = SafetensorsFile::Open(fixture_.dir + "/final." + norm + ".safetensors").value();
  double distance = 0;
  double update = 0;
  for (const LoraStore::Tensor& tensor : fixture_.store->tensors()) {
    const auto from = static_cast<size_t>(tensor.offset);
    const std::vector<float> final = testing::FloatsOf(*file->Find(tensor.name));
    const std::span<const float> actual = fixture_.store->master().subspan(from, final.size());
    testing::ExpectNear(actual, final, 2e-4, tensor.name);
    for (size_t i = 0; i < final.size(); ++i) {
      distance += std::pow(static_cast<double>(actual[i]) - final[i], 2);
      update += std::pow(static_cast<double>(final[i]) - init_[from + i], 2);
    }
  }
  EXPECT_LE(std::sqrt(distance), 1e-3 * std::sqrt(update));
}

constexpr const char* kTwoRanks = "extended/dense-headdim-two-ranks";
constexpr const char* kExperts = "extended/moe-tiny";
constexpr const char* kEmpty = "extended/empty-microbatch";

INSTANTIATE_TEST_SUITE_P(
    Fixtures,
    Trajectory,
    ::testing::Values(
        TrajectoryCase{"TwoRanksToken", kTwoRanks, "token", RecomputePolicy::kNothing},
        TrajectoryCase{"TwoRanksReference", kTwoRanks, "reference", RecomputePolicy::kBlock},
        TrajectoryCase{"EmptyMicrobatch", kEmpty, "token", RecomputePolicy::kMlp},
        TrajectoryCase{"ExpertsToken", kExperts, "token", RecomputePolicy::kMlp},
        TrajectoryCase{"ExpertsReference", kExperts, "reference", RecomputePolicy::kNothing}),
    [](const auto& run) { return run.param.name; });

}  // namespace
}  // namespace mft
