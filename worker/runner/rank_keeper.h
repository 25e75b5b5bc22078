// SPDX-License-Identifier: Apache-2.0
// The parent of one rank that srun starts, on whatever node: what the runner itself is to ranks
// beside it (child_process.h), and the runner's hand (rank_words.h).
#pragma once

#include <string>

#include "common/base/status.h"

namespace mft::runner {

// Runs rank SLURM_PROCID of the attempt until it and all that it started have ended, and says how
// on standard output. Standard input has the runner's words; when it ends the runner is dead, and
// the rank is killed. SIGTERM, SIGINT and SIGUSR1, which Slurm may send, are passed on. For the
// main thread of a process without others, once.
//
// Ok once it was said, whatever it was. The rank gets what StartChild gives, rank-N.log, and this
// process's environment.
Status KeepRank(const std::string& attempt_dir, const std::string& bin_dir);

}  // namespace mft::runner
