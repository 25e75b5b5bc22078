// SPDX-License-Identifier: Apache-2.0
// Where a session begins: at a checkpoint, from an adapter, or fresh; the same on every rank. All
// throw StatusError.
#pragma once

#include <cstdint>

#include "worker/train/reporter.h"
#include "worker/train/resume.h"
#include "worker/train/session.h"

namespace mft {

// Rank 0 scans the checkpoints; all ranks begin where it says, with as many microbatches.
ResumePoint FindBegin(Session& session);

// Restores the state of `point`, or begins at step 0. REQUIRES the model and the numeric plan.
void RestoreState(Session& session, const ResumePoint& point, Reporter& reporter);

// First values of a fresh adapter: A drawn from `seed`, rounded to bf16 where that is the compute
// type; B is 0 already.
void InitAdapter(int64_t seed, bool bf16, LoraStore& lora);

}  // namespace mft
