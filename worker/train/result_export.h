// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/train/reporter.h"
#include "worker/train/session.h"

namespace mft {

// Makes the forms of mftd.export that checkpoints do not have, of the weights that the session
// holds: <run_dir>/exports/checkpoint_000100/{peft,merged,hf}, each there as a whole or not at all.
// `trained`: this attempt made the weights, so what has that name is replaced; otherwise an attempt
// before it did, and only what it did not get to is made. Throws StatusError.
void ExportResult(Session& session, Reporter& reporter, bool trained);

}  // namespace mft
