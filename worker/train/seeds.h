// SPDX-License-Identifier: Apache-2.0
// One run of a job, or one for each of mftd.seeds with the best kept: adapters of mixtures of
// experts vary much with the seed (mistral-finetune's README).
#pragma once

#include "common/base/clock.h"
#include "worker/train/ranks.h"
#include "worker/train/reporter.h"
#include "worker/train/stop_signals.h"
#include "worker/train/train_context.h"

namespace mft {

// Runs of several seeds live in <run_dir>/seeds/<seed>/, one after the other, each as a run_dir of
// its own, so that an attempt goes on where the last one was. When all are done, <run_dir>'s
// checkpoints, exports and metric files become links to those of the run with the lowest eval loss
// (that of its best checkpoint with mftd.keep_best, else its last; the first of equals), and
// seeds.json says what was compared. Only the best is exported. What it returns is the rank's last
// word, in steps of the job. Throws StatusError.
FinalRecord RunJob(const TrainContext& context,
                   Ranks& ranks,
                   Reporter& reporter,
                   StopSignals& signals,
                   const Clock& clock);

}  // namespace mft
