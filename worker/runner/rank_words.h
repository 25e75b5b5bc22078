// SPDX-License-Identifier: Apache-2.0
// What the runner and the keeper of a rank on some node say to each other through srun's standard
// streams. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "worker/runner/rank_launcher.h"

namespace mft::runner {

// To all keepers, one byte each. The end of the stream says that the runner is dead: kill.
inline constexpr char kWordStop = 't';        // SIGTERM to the rank
inline constexpr char kWordCheckpoint = 'c';  // SIGUSR1 to the rank
inline constexpr char kWordKill = 'k';        // SIGKILL to the rank and all that it started

// From a keeper, its last word: one line.
std::string EncodeRankEnd(const RankEnd& end);
// nullopt for any other line: a site's prologue may write some. What stands before the word, as
// srun's --label, is skipped.
std::optional<RankEnd> DecodeRankEnd(std::string_view line);

}  // namespace mft::runner
