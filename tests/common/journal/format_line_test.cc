// SPDX-License-Identifier: Apache-2.0
#include "common/journal/format_line.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace mft {
namespace {

constexpr int64_t kAt = 1'716'588'192'000'000;  // 2024-05-24T22:03:12Z

StepRecord FirstStep() {
  return {.step = 1,
          .max_steps = 100,
          .loss = 0.8736,
          .learning_rate = 4.0e-6,
          .tokens_per_second = 585.71,
          .mean_tokens_per_second = 585.66,
          .eta_seconds = 109,
          .peak_memory_bytes = 21'040'000'000,
          .memory_bytes = 17'060'000'000};
}

TEST(FormatLine, WritesTheTrainLineOfMistralFinetune) {
  EXPECT_EQ(FormatStepLine(FirstStep(), {.wall_micros = kAt, .seconds_since_start = 67.9}),
            "2024-05-24 22:03:12 (UTC) - 0:01:07 - train - INFO - step: 000001 - done (%): 1.0 - "
            "loss: 0.874 - lr: 4.0e-06 - peak_alloc_mem (GB): 21.0 - alloc_mem (GB): 17.1 - "
            "words_per_second: 585.7 - avg_words_per_second: 585.7 - ETA: 2024-05-24 22:05:01Z");
}

TEST(FormatLine, WritesTheEvalLineOfMistralFinetune) {
  const EvalRecord eval{.step = 100, .eval_loss = 0.831, .perplexity = 2.2956, .train_loss = 0.762};
  EXPECT_EQ(FormatEvalLine(eval, {.wall_micros = kAt, .seconds_since_start = 36'005}),
            "2024-05-24 22:03:12 (UTC) - 10:00:05 - eval - INFO - step: 000100 - "
            "eval_perplexity: 2.296 - eval_loss: 0.831 - train_loss: 0.762");
}

TEST(FormatLine, SaysWhenAStepIsSkippedOrItsEndIsUnknown) {
  StepRecord step = FirstStep();
  step.loss = -std::numeric_limits<double>::quiet_NaN();
  step.eta_seconds = std::numeric_limits<double>::infinity();
  step.nonfinite = step.skipped = true;
  const std::string line = FormatStepLine(step, {.wall_micros = kAt});
  EXPECT_NE(line.find("- train - WARNING - "), std::string::npos) << line;
  EXPECT_NE(line.find("loss: nan - "), std::string::npos) << line;
  EXPECT_NE(line.find("ETA: unknown - skipped: loss or gradient is not finite"), std::string::npos)
      << line;
}

TEST(FormatLine, LongRunsKeepEveryDigitOfTheStep) {
  StepRecord step = FirstStep();
  step.step = 12'345'678;
  step.max_steps = 0;
  EXPECT_EQ(FormatStepMessage(step, kAt).substr(0, 14), "step: 12345678");
}

}  // namespace
}  // namespace mft
