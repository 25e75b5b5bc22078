// SPDX-License-Identifier: Apache-2.0
// Peak memory of a real training process, and the formula of the README.
#pragma once

#include <cstdint>

#include "common/checkpoint/activation_plan.h"
#include "common/checkpoint/model_params.h"

namespace mft::testing {

struct MemoryRun {
  ModelParams params;
  RecomputePolicy policy = RecomputePolicy::kBlock;  // kBlock or kNothing: what a job can ask for
  int64_t documents = 1;  // of `document_rows` rows, packed into one sequence: one step
  int64_t document_rows = 0;
};

struct MemoryFigures {
  int64_t peak = 0;         // VmHWM of the process
  int64_t program = 0;      // resident before it loads anything
  int64_t weights = 0;      // from here on computed
  int64_t lora_states = 0;  // weight, gradient, two moments
  int64_t kept = 0;         // activations that the policy keeps for the longest chunk
  int64_t full_logits = 0;  // of the sequence: must not be there
  // weights + LoRA states + 1.3 x kept
  int64_t bound() const { return weights + lora_states + kept * 13 / 10; }
};

// Trains one step with rank 16 on all projections, vocabulary and all else as `run` says.
MemoryFigures MeasureMemory(const MemoryRun& run);

}  // namespace mft::testing
