// SPDX-License-Identifier: Apache-2.0
// How ranks find each other: rank 0 listens, all others come to it, twice each.
#pragma once

#include <cstdint>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"
#include "worker/comm/communicator.h"

namespace mft {

struct RankLink {
  int64_t rank = 0;  // at the other end
  UniqueFd data;     // of the exchanges
  UniqueFd watch;    // of signs of life (rank_watch.h)
};

// Rank 0: a link to each other rank, in their order. Others: the one to rank 0. A visitor that is
// no rank of this job is sent away and told why; a rank of another build or number of ranks ends
// the meeting. Errors as MakeCommunicator.
Result<std::vector<RankLink>> MeetRanks(const RankOptions& options);

}  // namespace mft
