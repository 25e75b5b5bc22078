// SPDX-License-Identifier: Apache-2.0
// Runner and ranks of one attempt must be programs of one build (BuildId() in record.h): the runner
// says its own in the environment, and each rank in its journal's header.
#pragma once

#include <string_view>

#include "common/base/status.h"

namespace mft {

inline constexpr std::string_view kBuildVariable = "MFT_BUILD";

// For the main() of a rank: FAILED_PRECONDITION (BUILD_MISMATCH) if a runner of another build
// started this process. Ok when nobody did.
Status CheckBuildOfRunner();

// The same for the runner, of a rank's header.
Status CheckBuildOfRank(std::string_view program, std::string_view build);

}  // namespace mft
