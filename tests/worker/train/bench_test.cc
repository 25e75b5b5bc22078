// SPDX-License-Identifier: Apache-2.0
// What `mft-worker bench` reports: tokens, the floating-point operations that it counts, refusals.
#include "worker/train/bench.h"

#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include "common/base/json.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace mft {
namespace {

class Bench : public ::testing::Test {
 protected:
  Bench() : params_(testing::TinyParams(512)) {
    testing::WriteTinyModel(dir_.path(), params_);
    args_ = {.model_dir = dir_.path(), .rank = 4, .rounds = 2, .output = "json"};
  }
  Json Run() const {
    std::ostringstream out;
    const Status status = RunBench(args_, out);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return ParseJson(out.str()).value();
  }
  Status Refused() const {
    std::ostringstream out;
    const Status status = RunBench(args_, out);
    EXPECT_EQ(out.str(), "");
    return status;
  }

  testing::TempDir dir_;
  ModelParams params_;
  BenchArgs args_;
};

TEST_F(Bench, CountsEveryOperationOfAStep) {
  args_.phases = true;
  args_.lengths_file = dir_.Write("lengths", "100 28\n64\n");
  const Json report = Run();
  EXPECT_EQ(report["tokens"], 192);
  EXPECT_EQ(report["documents"], 3);
  EXPECT_EQ(report["step_seconds"].size(), 2U);
  std::map<std::string, double> flops;  // a token
  double us_per_token = 0;
  for (const Json& operation : report["operations"]) {
    const double us = operation["us_per_token"].get<double>();
    us_per_token += us;
    flops[operation["name"].get<std::string>()] = us * 1e3 * operation["gflops"].get<double>();
  }
  const auto layers = static_cast<double>(params_.n_layers);
  const auto product = [](int64_t out, int64_t in) { return 2.0 * static_cast<double>(out * in); };
  const double w1 = layers * product(params_.hidden_dim, params_.dim);
  EXPECT_NEAR(flops["w1 forward"], w1, 1e-6 * w1);
  EXPECT_NEAR(flops["w2 backward"], w1, 1e-6 * w1);
  const double head = product(params_.vocab_size, params_.dim);
  EXPECT_NEAR(flops["output forward"], head, 1e-6 * head);
  EXPECT_NEAR(flops["output backward"], head, 1e-6 * head);
  // There is no gradient below block 0.
  const double wq = product(params_.n_heads * params_.head_dim, params_.dim);
  EXPECT_NEAR(flops["wq forward"], layers * wq, 1e-6 * wq);
  EXPECT_NEAR(flops["wq backward"], (layers - 1) * wq, 1e-6 * wq);
  const double scores = (100.0 * 100 + 28 * 28 + 64 * 64) / 192;
  const double attention = 2 * scores * static_cast<double>(params_.n_heads * params_.head_dim);
  EXPECT_NEAR(flops["attention forward"], layers * attention, 1e-6 * attention);
  EXPECT_NEAR(flops["attention backward"], 2.5 * layers * attention, 1e-6 * attention);
  // The operations and what is between them are the whole step.
  const double mean =
      (report["step_seconds"][0].get<double>() + report["step_seconds"][1].get<double>()) / 2;
  EXPECT_NEAR(us_per_token, 1e6 * mean / 192, 1e-3 * us_per_token);
}

TEST_F(Bench, RecomputationIsInTheOperationsAndNotInTheRate) {
  args_.phases = true;
  args_.recompute = "block";
  const Json report = Run();
  for (const Json& operation : report["operations"]) {
    if (operation["name"] == "w1 forward") {
      const double flops =
          operation["us_per_token"].get<double>() * 1e3 * operation["gflops"].get<double>();
      EXPECT_NEAR(
          flops,
          2 * 2.0 * static_cast<double>(params_.n_layers * params_.hidden_dim * params_.dim),
          1.0);
    }
  }
  const double frozen = static_cast<double>(ActiveMatmulParameters(params_));
  const double adapters =
      static_cast<double>(ActiveLoraParameters(params_, args_.rank, args_.target_modules));
  const double f =
      4 * frozen + 6 * adapters +
      7.0 * 512 * static_cast<double>(params_.n_heads * params_.head_dim * params_.n_layers);
  EXPECT_NEAR(report["gflops"].get<double>() * 1e9,
              f * report["tokens_per_second"].get<double>(),
              1e-6 * f * report["tokens_per_second"].get<double>());
}

TEST_F(Bench, HasNoOperationsUnlessAsked) {
  EXPECT_FALSE(Run().contains("operations"));
}

TEST_F(Bench, RefusesLengthsThatAreNone) {
  for (const char* text : {"", "12 x", "0", "-4", "1.5", "99999999999999999999", "67108864 1"}) {
    args_.lengths_file = dir_.Write("lengths", text);
    const Status status = Refused();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << text;
    EXPECT_NE(status.message().find("lengths"), std::string::npos) << status.message();
  }
  args_.lengths_file = dir_.File("missing");
  EXPECT_EQ(Refused().code(), Code::kNotFound);
}

}  // namespace
}  // namespace mft
