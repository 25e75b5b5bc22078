// SPDX-License-Identifier: Apache-2.0
// Whole runs of `mft-worker train` on a GPU, beside the CPU and beside themselves.
#include <signal.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/train/train_run.h"

namespace mft {
namespace {

using testing::Ended;
using testing::TempDir;
using testing::TrainRun;

constexpr int64_t kSteps = 40;
constexpr int64_t kCheckpointEvery = 5;

std::string TestDevice() {
  const char* const wish = std::getenv("MFT_TEST_DEVICE");
  return wish == nullptr ? "cuda" : wish;
}

// bf16 weights, grouped heads, documents of 5 to 40 tokens.
TrainRun MakeRun(const TempDir& dir,
                 const std::string& name,
                 const std::string& device,
                 const std::string& precision) {
  TrainRun run(dir.path() + "/" + name, "dense-bf16");
  run.device = run.spec.mftd.device = device;
  run.spec.mftd.precision = precision;
  run.spec.max_steps = kSteps;
  run.spec.ckpt_freq = kCheckpointEvery;
  run.spec.num_ckpt_keep = 0;
  return run;
}

// The CPU may have no bf16.
std::string PrecisionOf(const std::string& device) {
  return device == "cpu" ? "fp32" : "bf16";
}

struct Steps {
  std::vector<int64_t> number;
  std::vector<double> loss, grad_norm;
  explicit Steps(const TrainRun& run) {
    for (const StepRecord& step : run.Records<StepRecord>()) {
      number.push_back(step.step);
      loss.push_back(step.loss);
      grad_norm.push_back(step.grad_norm);
    }
  }
};

TEST(TrainOnDevice, LossesAreThoseOfTheCpu) {
  TempDir dir;
  TrainRun on_cpu = MakeRun(dir, "cpu", "cpu", "fp32");
  TrainRun on_device = MakeRun(dir, "device", TestDevice(), PrecisionOf(TestDevice()));
  Ended ended = on_cpu.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  ended = on_device.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  std::cout << ended.log;
  const Steps expected(on_cpu);
  const Steps actual(on_device);
  ASSERT_EQ(expected.loss.size(), static_cast<size_t>(kSteps));
  ASSERT_EQ(actual.number, expected.number);
  EXPECT_LT(expected.loss.back(), 0.9 * expected.loss.front());  // it learns
  for (size_t i = 0; i < expected.loss.size(); ++i) {
    EXPECT_NEAR(actual.loss[i], expected.loss[i], 0.01 * expected.loss[i]) << expected.number[i];
    EXPECT_NEAR(actual.grad_norm[i], expected.grad_norm[i], 0.05 * expected.grad_norm[i])
        << expected.number[i];
  }
}

// Three kills, each at a step of its own.
TEST(TrainOnDevice, KilledDeterministicRunsGoOnBitByBit) {
  TempDir dir;
  const auto make = [&](const std::string& name) {
    TrainRun run = MakeRun(dir, name, TestDevice(), PrecisionOf(TestDevice()));
    run.spec.mftd.deterministic = "true";
    run.spec.lora.dropout = 0.1;
    return run;
  };
  TrainRun undisturbed = make("undisturbed");
  Ended ended = undisturbed.Run();
  ASSERT_EQ(ended.exit_code, 0) << ended.log;
  const Steps expected(undisturbed);
  ASSERT_EQ(expected.loss.size(), static_cast<size_t>(kSteps));

  std::random_device random;
  for (int round = 0; round < 3; ++round) {
    TrainRun killed = make(StrCat("killed-", round));
    const int64_t at = std::uniform_int_distribution<int64_t>(1, kSteps - 4)(random);
    SCOPED_TRACE(StrCat("killed at step ", at));
    killed.Start();
    ASSERT_TRUE(killed.WaitFor([at](const Record& record) {
      const auto* step = std::get_if<StepRecord>(&record.body);
      return step != nullptr && step->step >= at;
    }));
    killed.Signal(SIGKILL);
    EXPECT_EQ(killed.Wait().signal, SIGKILL);
    ended = killed.Run();
    ASSERT_EQ(ended.exit_code, 0) << ended.log;
    EXPECT_EQ(ended.log.find("up to rounding"), std::string::npos) << ended.log;
    const int64_t from = killed.Records<ResumeRecord>().at(0).from_step;
    EXPECT_GE(from, at / kCheckpointEvery * kCheckpointEvery - kCheckpointEvery);
    const Steps actual(killed);
    ASSERT_EQ(actual.number.size(), static_cast<size_t>(kSteps - from));
    const auto skip = [from](const std::vector<double>& all) {
      return std::vector<double>(all.begin() + from, all.end());
    };
    EXPECT_EQ(actual.loss, skip(expected.loss));
    EXPECT_EQ(actual.grad_norm, skip(expected.grad_norm));
    EXPECT_EQ(ReadFile(killed.TrainedFile(kSteps)).value(),
              ReadFile(undisturbed.TrainedFile(kSteps)).value());
  }
}

}  // namespace
}  // namespace mft
