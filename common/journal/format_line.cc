// SPDX-License-Identifier: Apache-2.0
#include "common/journal/format_line.h"

#include <algorithm>
#include <cmath>

#include "common/base/clock.h"
#include "common/base/strings.h"

namespace mft {

namespace {
constexpr double kBytesPerGb = 1e9;
constexpr int64_t kMicros = 1'000'000;

std::string ZeroPadded(int64_t value, size_t width) {
  std::string digits = std::to_string(value);
  return digits.size() < width ? std::string(width - digits.size(), '0') + digits : digits;
}

// "2024-05-24 22:03:12"
std::string UtcText(int64_t wall_micros) {
  std::string text = FormatUtc(wall_micros).substr(0, 19);
  text[10] = ' ';
  return text;
}

// "1:07:09", hours without a limit, as Python prints a timedelta of less than a day.
std::string ElapsedText(double seconds) {
  const auto whole = static_cast<int64_t>(std::max(0.0, std::isfinite(seconds) ? seconds : 0.0));
  return StrCat(whole / 3600, ":", ZeroPadded(whole / 60 % 60, 2), ":", ZeroPadded(whole % 60, 2));
}

std::string Number(double value, int digits) {
  if (std::isnan(value)) {
    return "nan";  // printf would show the sign of a NaN
  }
  return FormatFixed(value, digits);
}

std::string Eta(const StepRecord& step, int64_t wall_micros) {
  constexpr double kYear = 365.0 * 86400;
  if (!std::isfinite(step.eta_seconds) || step.eta_seconds > 100 * kYear) {
    return "unknown";
  }
  return UtcText(wall_micros + static_cast<int64_t>(step.eta_seconds * kMicros)) + "Z";
}
}  // namespace

std::string FormatStepMessage(const StepRecord& step, int64_t wall_micros) {
  const double done = 100.0 * static_cast<double>(step.step) /
                      static_cast<double>(std::max<int64_t>(1, step.max_steps));
  std::string text = StrCat("step: ",
                            ZeroPadded(step.step, 6),
                            " - done (%): ",
                            Number(done, 1),
                            " - loss: ",
                            Number(step.loss, 3),
                            " - lr: ",
                            FormatScientific(step.learning_rate, 1));
  text += StrCat(" - peak_alloc_mem (GB): ",
                 Number(static_cast<double>(step.peak_memory_bytes) / kBytesPerGb, 1),
                 " - alloc_mem (GB): ",
                 Number(static_cast<double>(step.memory_bytes) / kBytesPerGb, 1),
                 " - words_per_second: ",
                 Number(step.tokens_per_second, 1),
                 " - avg_words_per_second: ",
                 Number(step.mean_tokens_per_second, 1));
  text += StrCat(" - ETA: ", Eta(step, wall_micros));
  if (step.skipped) {
    text += " - skipped: loss or gradient is not finite";
  }
  return text;
}

std::string FormatEvalMessage(const EvalRecord& eval) {
  return StrCat("step: ",
                ZeroPadded(eval.step, 6),
                " - eval_perplexity: ",
                Number(eval.perplexity, 3),
                " - eval_loss: ",
                Number(eval.eval_loss, 3),
                " - train_loss: ",
                Number(eval.train_loss, 3));
}

std::string FormatLogLine(const LineTime& time,
                          std::string_view logger,
                          std::string_view level,
                          std::string_view message) {
  return StrCat(UtcText(time.wall_micros),
                " (UTC) - ",
                ElapsedText(time.seconds_since_start),
                " - ",
                logger,
                " - ",
                level,
                " - ",
                message);
}

std::string FormatStepLine(const StepRecord& step, const LineTime& time) {
  return FormatLogLine(time,
                       "train",
                       step.nonfinite ? "WARNING" : "INFO",
                       FormatStepMessage(step, time.wall_micros));
}

std::string FormatEvalLine(const EvalRecord& eval, const LineTime& time) {
  return FormatLogLine(time, "eval", "INFO", FormatEvalMessage(eval));
}

}  // namespace mft
