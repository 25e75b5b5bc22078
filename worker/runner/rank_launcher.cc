// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/rank_launcher.h"

#include "common/base/files.h"
#include "common/base/strings.h"
#include "worker/runner/local_ranks.h"
#include "worker/runner/srun_ranks.h"

namespace mft::runner {

std::string RankFile(const std::string& dir, int rank, std::string_view suffix) {
  return JoinPath(dir, StrCat("rank-", rank, suffix));
}

std::unique_ptr<RankLauncher> MakeRankLauncher(const AttemptFile& attempt,
                                               const std::string& dir,
                                               const std::string& bin_dir) {
  if (attempt.kind == AttemptKind::kTrain && attempt.ranks_per_node > 0) {
    return std::make_unique<SrunRanks>(attempt, dir, bin_dir);
  }
  return std::make_unique<LocalRanks>(attempt, dir, bin_dir);
}

}  // namespace mft::runner
