// SPDX-License-Identifier: Apache-2.0
// Learning rate and beta1 of each optimizer step: torch's OneCycleLR with two cosine phases, as
// mistral-finetune uses it (finetune-spec 4.2), beta1 cycling against the rate included.
#pragma once

#include <cstdint>

namespace mft {

struct ScheduleOptions {
  double peak_lr =
      0;  // reached when the warm-up ends; it starts at peak / 25, ends at peak / 250000
  int64_t total_steps = 1;  // T
  double pct_start = 0.05;  // share of T - steps that warms up, in [0, 1]
  bool cycle_beta1 = true;  // 0.95 -> 0.85 at the peak -> 0.95; otherwise 0.9 throughout
};

struct StepRates {
  double lr = 0;
  double beta1 = 0;
};

// Rates used in optimizer step `step`, counted from 1. With t = step - 1, e1 = pct_start T - 1 (end
// of the warm-up) and e2 = T - 1, cosine interpolation over t / e1 up to e1, then over
// (t - e1) / (e2 - e1).
//
// Where torch's code divides by zero, these are the limits of the formula: a phase of zero length
// stands at its end. So pct_start T = 1 starts at the peak, and T = 1 with pct_start = 1 is one
// step at the peak. e1 < 0 has no warm-up and starts part-way down, as in torch: T = 1 with a
// smaller pct_start trains at peak / 250000.
// REQUIRES: 1 <= step <= total_steps.
StepRates RatesAt(const ScheduleOptions& options, int64_t step);

}  // namespace mft
