// SPDX-License-Identifier: Apache-2.0
// What evaluations decide: which checkpoint is the best, and when to stop. Part of a run's state,
// so that a run that goes on decides as an undisturbed one.
#pragma once

#include <cstdint>
#include <limits>

#include "common/config/job_spec.h"

namespace mft {

struct Choice {
  static constexpr double kNone = std::numeric_limits<double>::infinity();
  int64_t best_step = 0;          // of the lowest eval loss; 0: none yet
  double best_loss = kNone;       // of it
  double reference_loss = kNone;  // what the next improvement is measured from
  int64_t waited = 0;             // evaluations since the last improvement
  double last_loss = kNone;       // of the newest evaluation

  // Takes in an evaluation. An improvement is a loss lower than that of the last improvement by
  // more than `min_delta`; a loss that is not finite is none. True: the lowest of the run.
  bool Observe(int64_t step, double loss, double min_delta);

  bool seen() const { return best_step > 0 || waited > 0; }
  bool ShouldStop(const EarlyStopSpec& early_stop) const {
    return early_stop.patience > 0 && waited >= early_stop.patience;
  }
  // The best is gone: the next evaluation is the lowest.
  void ForgetBest() {
    best_step = 0;
    best_loss = kNone;
  }
};

}  // namespace mft
