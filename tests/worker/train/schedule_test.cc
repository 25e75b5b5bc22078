// SPDX-License-Identifier: Apache-2.0
#include "worker/train/schedule.h"

#include <cmath>

#include <gtest/gtest.h>

namespace mft {
namespace {

struct Row {
  int64_t total_steps;
  double peak_lr;
  double pct_start;
  int64_t step;
  double lr;
  double beta1;
};

// Printed by torch.optim.lr_scheduler.OneCycleLR over AdamW (PyTorch 1.13), before each step().
constexpr Row kTorch[] = {
    {100, 0.0001, 0.05, 1, 4.000000000000002e-06, 0.95},
    {100, 0.0001, 0.05, 2, 1.8058874503045725e-05, 0.9353553390593273},
    {100, 0.0001, 0.05, 3, 5.2000000000000004e-05, 0.8999999999999999},
    {100, 0.0001, 0.05, 50, 5.412915075774753e-05, 0.8958710327263834},
    {100, 0.0001, 0.05, 99, 2.773702360516574e-08, 0.9499726628670463},
    {100, 0.0001, 0.05, 100, 3.9999999999999996e-10, 0.95},
    {300, 6e-05, 0.05, 1, 2.3999999999999974e-06, 0.95},
    {300, 6e-05, 0.05, 2, 3.122076129163481e-06, 0.9487463956090911},
    {300, 6e-05, 0.05, 3, 5.2520966044103265e-06, 0.945048443395121},
    {300, 6e-05, 0.05, 150, 3.247749045464852e-05, 0.8958710327263834},
    {300, 6e-05, 0.05, 299, 2.062615879216702e-09, 0.9499969622947171},
    {300, 6e-05, 0.05, 300, 2.4e-10, 0.95},
    {12, 0.003, 0.3, 1, 0.00011999999999999988, 0.95},
    {12, 0.003, 0.3, 2, 0.0010493689626587491, 0.9177302443521267},
    {12, 0.003, 0.3, 3, 0.002637855477366386, 0.8625744625914449},
    {12, 0.003, 0.3, 6, 0.002435236961849289, 0.8688255099070633},
    {12, 0.003, 0.3, 11, 0.00010370096227618565, 0.9465436874322102},
    {12, 0.003, 0.3, 12, 1.2e-08, 0.95},
    {4, 0.01, 0.0, 1, 0.008535539763797114, 0.8646446609406726},
    {4, 0.01, 0.0, 2, 0.00500002, 0.8999999999999999},
    {4, 0.01, 0.0, 3, 0.0014645002362028865, 0.9353553390593273},
    {4, 0.01, 0.0, 4, 4e-08, 0.95},
    {50, 0.001, 0.5, 1, 3.9999999999999996e-05, 0.95},
    {50, 0.001, 0.5, 2, 4.410646654057096e-05, 0.9495722430686905},
    {50, 0.001, 0.5, 3, 5.635560338124721e-05, 0.9482962913144534},
    {50, 0.001, 0.5, 25, 0.001, 0.85},
    {50, 0.001, 0.5, 49, 3.9466335721637466e-06, 0.9496057350657239},
    {50, 0.001, 0.5, 50, 4e-09, 0.95},
    {7, 1.0, 1.0, 1, 0.040000000000000036, 0.95},
    {7, 1.0, 1.0, 2, 0.10430780618346935, 0.9433012701892219},
    {7, 1.0, 1.0, 3, 0.28, 0.9249999999999999},
    {7, 1.0, 1.0, 6, 0.9356921938165306, 0.856698729810778},
    {7, 1.0, 1.0, 7, 1.0, 0.85},
};

StepRates At(int64_t total_steps, double peak_lr, double pct_start, int64_t step) {
  return RatesAt({.peak_lr = peak_lr, .total_steps = total_steps, .pct_start = pct_start}, step);
}

TEST(Schedule, EqualsTorchsOneCycle) {
  for (const Row& row : kTorch) {
    const StepRates rates = At(row.total_steps, row.peak_lr, row.pct_start, row.step);
    SCOPED_TRACE(testing::Message() << "T " << row.total_steps << " step " << row.step);
    EXPECT_NEAR(rates.lr, row.lr, 1e-14 * row.peak_lr);
    EXPECT_NEAR(rates.beta1, row.beta1, 1e-14);
  }
}

TEST(Schedule, WarmUpOfLengthZeroStartsAtThePeak) {
  // pct_start T = 1: the default 0.05 with 20 steps, and products that round.
  for (const auto& [total, pct] :
       {std::pair<int64_t, double>{20, 0.05}, {10, 0.1}, {49, 1.0 / 49}}) {
    EXPECT_DOUBLE_EQ(At(total, 1e-3, pct, 1).lr, 1e-3) << total;
    EXPECT_DOUBLE_EQ(At(total, 1e-3, pct, 1).beta1, 0.85) << total;
    EXPECT_LT(At(total, 1e-3, pct, 2).lr, 1e-3) << total;
    EXPECT_NEAR(At(total, 1e-3, pct, total).lr, 4e-9, 1e-20) << total;
  }
}

TEST(Schedule, OneStepIsDefinedForEveryShareOfWarmUp) {
  EXPECT_DOUBLE_EQ(At(1, 1e-3, 0.05, 1).lr, 4e-9);  // torch's value: part-way down at the very end
  EXPECT_DOUBLE_EQ(At(1, 1e-3, 0.0, 1).lr, 4e-9);
  EXPECT_DOUBLE_EQ(At(1, 1e-3, 1.0, 1).lr, 1e-3);
}

TEST(Schedule, IsFiniteAndWithinItsBoundsEverywhere) {
  for (int64_t total = 1; total <= 64; ++total) {
    for (int percent = 0; percent <= 100; ++percent) {
      for (int64_t step = 1; step <= total; ++step) {
        const StepRates rates = At(total, 1.0, percent / 100.0, step);
        ASSERT_TRUE(rates.lr >= 4e-6 * (1 - 1e-9) && rates.lr <= 1.0 + 1e-12)
            << total << " " << percent << " " << step << " " << rates.lr;
        ASSERT_TRUE(rates.beta1 >= 0.85 - 1e-12 && rates.beta1 <= 0.95 + 1e-12);
      }
    }
  }
}

TEST(Schedule, FixedBeta1StaysAtTheConfiguredValue) {
  for (int64_t step = 1; step <= 10; ++step) {
    EXPECT_DOUBLE_EQ(
        RatesAt({.peak_lr = 1, .total_steps = 10, .pct_start = 0.3, .cycle_beta1 = false}, step)
            .beta1,
        0.9);
  }
}

}  // namespace
}  // namespace mft
