// SPDX-License-Identifier: Apache-2.0
// Which of a device's ways to compute attention a run takes: measured once at its start, kept in
// the numeric plan from then on.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace mft {

struct AttentionCandidate {
  std::string name;
  bool deterministic = false;  // its backward pass gives the same bits in every run
  // So slow that measuring it would take long: taken where no other is left.
  bool last_resort = false;
  // What forward and backward pass give for a small problem that is the same for every candidate,
  // matrix by matrix. Throws where it does not work.
  std::function<std::vector<std::vector<float>>()> outputs;
  // Both passes of the problem that is measured; returns when they are done.
  std::function<void()> run;
};

struct AttentionChoice {
  struct Time {
    std::string name;
    double seconds = 0;  // of a run, the median
  };
  std::string name;
  std::vector<Time> times;            // of those that were measured, the fastest first
  std::vector<std::string> left_out;  // "cudnn: why", a line each
};

struct AttentionWish {
  bool deterministic = false;  // only candidates that are
  std::string previous;        // of a checkpoint's plan: taken where it is there, without measuring
};

// The fastest of the candidates whose outputs are those of the first that works, which is the most
// trusted one: matrices differ by at most kAttentionTolerance of their norm. What throws, is not
// finite or differs is left out. FAILED_PRECONDITION with every reason where none is left.
inline constexpr double kAttentionTolerance = 0.05;  // bf16 differs by up to 0.01
Result<AttentionChoice> ChooseAttention(std::span<const AttentionCandidate> candidates,
                                        const AttentionWish& wish,
                                        const Clock& clock);

}  // namespace mft
