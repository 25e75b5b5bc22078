// SPDX-License-Identifier: Apache-2.0
// What is run for a rank, whoever starts it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/config/job_file.h"

namespace mft::runner {

// mft-worker, or mft-data for a preparation.
std::string RankProgram(AttemptKind kind);

// The program's path and arguments, the same for every rank.
std::vector<std::string> RankArguments(AttemptKind kind,
                                       const std::string& attempt_dir,
                                       const std::string& bin_dir);

// The variables that every rank has, but for those that say which one it is.
std::vector<std::pair<std::string, std::string>> RankVariables(const AttemptFile& attempt);

}  // namespace mft::runner
