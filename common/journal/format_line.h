// SPDX-License-Identifier: Apache-2.0
// Metric lines for people: the format of mistral-finetune's train and eval lines
// (finetune-spec 4.8) without its bugs. Shared by the worker's log and `mftctl logs`.
//
//   2024-05-24 22:03:12 (UTC) - 0:01:07 - train - INFO - step: 000001 - done (%): 1.0 - loss: 0.874
//     - lr: 4.0e-06 - peak_alloc_mem (GB): 21.0 - alloc_mem (GB): 17.1 - words_per_second: 585.7
//     - avg_words_per_second: 585.7 - ETA: 2024-05-24 22:05:01Z        (on one line)
//   ... - eval - INFO - step: 000100 - eval_perplexity: 2.296 - eval_loss: 0.831 - train_loss:
//   0.762
//
// Differences: no ">" before the ETA, GB are 10^9 bytes, words (tokens) are those of all ranks,
// perplexity is e^loss, times are UTC.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/journal/record.h"

namespace mft {

// When a line was said: wall clock, and seconds since the attempt began.
struct LineTime {
  int64_t wall_micros = 0;
  double seconds_since_start = 0;
};

// "2024-05-24 22:03:12 (UTC) - 0:01:07 - LOGGER - LEVEL - MESSAGE".
std::string FormatLogLine(const LineTime& time,
                          std::string_view logger,
                          std::string_view level,
                          std::string_view message);

std::string FormatStepLine(const StepRecord& step, const LineTime& time);
std::string FormatEvalLine(const EvalRecord& eval, const LineTime& time);

// The same without time, logger and level. `wall_micros` is when the step ended (for the ETA).
std::string FormatStepMessage(const StepRecord& step, int64_t wall_micros);
std::string FormatEvalMessage(const EvalRecord& eval);

}  // namespace mft
