// SPDX-License-Identifier: Apache-2.0
// The whole path of a training job against trajectories of mistral-finetune's own code in float64
// (tests/fixtures/train/README.md has the tolerances).
#include <cmath>
#include <numeric>
#include <tuple>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/checkpoint/manifest.h"
#include "common/checkpoint/safetensors.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/train/train_run.h"
#include "worker/kernels/kernels.h"

namespace mft {
namespace {

using testing::ReadJsonLines;
using testing::ReadTensors;
using testing::TempDir;
using testing::TrainRun;

struct Case {
  const char* fixture;
  const char* loss_norm;
  bool recompute;
  bool long_documents = false;  // the fixture evaluates them whole, we split them at seq_len
};

class Trajectory : public ::testing::TestWithParam<Case> {};

void ExpectWeightsNear(const std::string& path, const std::string& expected_path) {
  const auto actual = ReadTensors(path);
  const auto expected = ReadTensors(expected_path);
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, values] : expected) {
    ASSERT_TRUE(actual.contains(name)) << name;
    ASSERT_EQ(actual.at(name).size(), values.size()) << name;
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(actual.at(name)[i], values[i], 2e-4) << name << " at " << i;
    }
  }
}

// The fixtures' mixtures have 4 experts, 2 of them for each token.
void ExpectExpertLoad(const StepRecord& step, bool experts) {
  EXPECT_EQ(step.expert_share.size(), experts ? 4U : 0U);
  EXPECT_EQ(step.expert_imbalance.has_value(), experts);
  if (experts) {
    EXPECT_NEAR(std::accumulate(step.expert_share.begin(), step.expert_share.end(), 0.0), 1, 1e-9);
    EXPECT_GE(*step.expert_imbalance, 1);
    EXPECT_LE(*step.expert_imbalance, 2);
  }
}

TEST_P(Trajectory, EqualsTheReference) {
  TempDir dir;
  TrainRun run(dir.path(), GetParam().fixture);
  run.spec.mftd.loss_norm = GetParam().loss_norm;
  run.spec.checkpoint = GetParam().recompute;
  run.spec.no_eval = false;
  const testing::Ended ended = run.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;

  const std::string stem = run.fixture_dir() + "/";
  const auto expected = ReadJsonLines(stem + "expected." + GetParam().loss_norm + ".jsonl");
  const auto steps = run.Records<StepRecord>();
  ASSERT_EQ(steps.size(), expected.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(i + 1);
    const Json& want = expected[i];
    EXPECT_EQ(steps[i].step, want["step"].get<int64_t>());
    EXPECT_NEAR(steps[i].loss / want["loss"].get<double>(), 1, 2e-6);
    EXPECT_NEAR(steps[i].grad_norm / want["grad_norm"].get<double>(), 1, 2e-5);
    EXPECT_NEAR(steps[i].learning_rate, want["lr"].get<double>(), 1e-9);
    EXPECT_NEAR(steps[i].beta1, want["beta1"].get<double>(), 1e-9);
    EXPECT_EQ(steps[i].loss_tokens, want["loss_tokens"].get<int64_t>());
    EXPECT_DOUBLE_EQ(steps[i].perplexity, std::exp(steps[i].loss));
    ExpectExpertLoad(steps[i], std::string(GetParam().fixture).find("moe") != std::string::npos);
  }
  const std::string final = stem + "final." + GetParam().loss_norm + ".safetensors";
  if (PathExists(final)) {  // of `full` there is one
    ExpectWeightsNear(run.TrainedFile(run.spec.max_steps), final);
  } else {
    EXPECT_STREQ(GetParam().fixture, "full");
  }

  if (GetParam().long_documents) {
    return;
  }
  const Json eval =
      ParseJson(ReadFile(stem + "expected_eval." + GetParam().loss_norm + ".json").value()).value();
  const auto evals = run.Records<EvalRecord>();
  ASSERT_EQ(evals.size(), 1U);
  EXPECT_EQ(evals[0].loss_tokens, eval["loss_tokens"].get<int64_t>());
  EXPECT_NEAR(evals[0].eval_loss / eval["eval_loss"].get<double>(), 1, 1e-5);
  EXPECT_NEAR(evals[0].perplexity / eval["perplexity"].get<double>(), 1, 1e-4);
}

// numerics.md, "Precision": at most twice as far from float64 as mistral-finetune's own mixed
// precision is, largest over the steps.
TEST(Bf16, LossesStayAsNearToFloat64AsTheBoundAsks) {
  TempDir dir;
  TrainRun run(dir.path(), "dense-bf16");
  run.spec.mftd.loss_norm = "reference";
  run.spec.mftd.precision = "bf16";
  const testing::Ended ended = run.Run();
  if (CpuBf16Kernels() == nullptr) {
    EXPECT_EQ(ended.exit_code, 1);
    EXPECT_NE(ended.log.find("mftd.precision: precision bf16"), std::string::npos) << ended.log;
    GTEST_SKIP() << "no AVX512-BF16 here: refused";
  }
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  const auto expected = ReadJsonLines(run.fixture_dir() + "/expected.jsonl");
  const auto steps = run.Records<StepRecord>();
  ASSERT_EQ(steps.size(), expected.size());
  double ours = 0;
  double upstream = 0;
  double norm = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const double loss = expected[i]["loss"].get<double>();
    ours = std::max(ours, std::abs(steps[i].loss - loss));
    upstream = std::max(upstream, std::abs(expected[i]["upstream_bf16_loss"].get<double>() - loss));
    norm =
        std::max(norm, std::abs(steps[i].grad_norm / expected[i]["grad_norm"].get<double>() - 1));
  }
  EXPECT_LE(ours, 2 * upstream);
  EXPECT_GT(ours, 1e-6);  // nothing in fp32 is as far
  EXPECT_LE(norm, 0.02);
  const std::string checkpoint = run.Checkpoint(run.spec.max_steps);
  EXPECT_EQ(ReadManifest(checkpoint).value().plan["precision"], "bf16");
  const auto adapter = SafetensorsFile::Open(checkpoint + "/consolidated/lora.safetensors").value();
  EXPECT_EQ(adapter->Find("layers.0.attention.wq.lora_A.weight")->dtype, DType::kBF16);
}

// Weights in bf16 are computed with in bf16 where nothing else is said, those in fp32 in fp32; a
// run that goes on keeps what it began with.
TEST(Bf16, IsTakenForBf16Weights) {
  if (CpuBf16Kernels() == nullptr) {
    GTEST_SKIP() << "no AVX512-BF16 here";
  }
  for (const auto& [fixture, before, precision] : {std::tuple("dense-bf16", "", "bf16"),
                                                   std::tuple("dense-bf16", "fp32", "fp32"),
                                                   std::tuple("dense", "", "fp32")}) {
    TempDir dir;
    TrainRun run(dir.path(), fixture);
    run.spec.max_steps = 1;
    if (std::string(before) != "") {
      run.spec.mftd.precision = before;
      ASSERT_EQ(run.Run().exit_code, 0);
      run.spec.max_steps = 2;
    }
    run.spec.mftd.precision = "auto";
    const testing::Ended ended = run.Run();
    ASSERT_EQ(ended.exit_code, 0) << ended.log;
    EXPECT_EQ(ReadManifest(run.Checkpoint(run.spec.max_steps)).value().plan["precision"], precision)
        << fixture << " after " << before;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures,
    Trajectory,
    ::testing::Values(Case{"dense", "token", true},
                      Case{"dense", "reference", false},
                      Case{"dense-headdim", "token", false},
                      Case{"dense-headdim", "reference", true},
                      Case{"extended/dense-tiny", "token", true},
                      Case{"extended/dense-headdim", "token", true, true},
                      Case{"extended/dense-headdim", "reference", true, true},
                      Case{"two-ranks", "token", true, true},
                      Case{"two-ranks", "reference", false, true},
                      Case{"extended/dense-headdim-two-ranks", "token", true, true},
                      Case{"extended/dense-headdim-two-ranks", "reference", false, true},
                      Case{"full", "token", true},
                      Case{"full", "reference", false},
                      Case{"moe", "token", true},
                      Case{"moe", "reference", false},
                      Case{"extended/moe-tiny", "token", true},
                      Case{"extended/moe-tiny", "reference", false}));

}  // namespace
}  // namespace mft
