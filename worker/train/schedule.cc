// SPDX-License-Identifier: Apache-2.0
#include "worker/train/schedule.h"

#include <cmath>
#include <numbers>

#include "common/base/status.h"
#include "common/base/strings.h"

namespace mft {

namespace {
constexpr double kDivFactor = 25;
constexpr double kFinalDivFactor = 1e4;
constexpr double kMaxMomentum = 0.95;
constexpr double kBaseMomentum = 0.85;
constexpr double kFixedBeta1 = 0.9;  // what mistral-finetune's constructor asks for
// pct_start T - 1 is a rounded product: a length below this is zero.
constexpr double kEmptyPhase = 1e-9;

// torch's order of operations, so that the values agree to the last digits.
double Cosine(double from, double to, double share) {
  return to + (from - to) / 2.0 * (std::cos(std::numbers::pi * share) + 1);
}

double Share(double done, double length) {
  return std::abs(length) < kEmptyPhase ? 1.0 : done / length;
}
}  // namespace

StepRates RatesAt(const ScheduleOptions& options, int64_t step) {
  MFT_CHECK(step >= 1 && step <= options.total_steps,
            StrCat("step ", step, " of ", options.total_steps));
  const double t = static_cast<double>(step - 1);
  double warm_up_end = options.pct_start * static_cast<double>(options.total_steps) - 1;
  if (std::abs(warm_up_end) < kEmptyPhase) {
    warm_up_end = 0;
  }
  const double end = static_cast<double>(options.total_steps) - 1;
  const double initial = options.peak_lr / kDivFactor;
  const double last = initial / kFinalDivFactor;

  StepRates rates;
  if (t <= warm_up_end) {
    const double share = Share(t, warm_up_end);
    rates.lr = Cosine(initial, options.peak_lr, share);
    rates.beta1 = Cosine(kMaxMomentum, kBaseMomentum, share);
  } else {
    const double share = Share(t - warm_up_end, end - warm_up_end);
    rates.lr = Cosine(options.peak_lr, last, share);
    rates.beta1 = Cosine(kBaseMomentum, kMaxMomentum, share);
  }
  if (!options.cycle_beta1) {
    rates.beta1 = kFixedBeta1;
  }
  return rates;
}

}  // namespace mft
