// SPDX-License-Identifier: Apache-2.0
// How ranks find each other: rank 0 listens, all others come to it, once for each channel. From
// the first time on each gives signs of life.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"
#include "worker/comm/communicator.h"
#include "worker/comm/rank_watch.h"

namespace mft {

// Connections of a rank to another one.
enum class Channel : uint32_t {
  kMain,        // the communicator's calls
  kBackground,  // those of Communicator::background()
  kWatch,       // signs of life: the RankWatch has this one
};
inline constexpr std::array kDataChannels = {Channel::kMain, Channel::kBackground};

struct RankLink {
  int64_t rank = 0;  // at the other end
  std::array<UniqueFd, kDataChannels.size()> fds;
  UniqueFd& operator[](Channel channel) { return fds[static_cast<size_t>(channel)]; }
  const UniqueFd& operator[](Channel channel) const { return fds[static_cast<size_t>(channel)]; }
};

// Rank 0: a link to each other rank, in their order. Others: the one to rank 0. A visitor that is
// no rank of this job is sent away and told why; a rank of another build, number of ranks or
// transport ends the meeting. `watch`, which was started, gets the ranks as they come. Errors as
// MakeCommunicator; CANCELLED where options.stop ended it.
Result<std::vector<RankLink>> MeetRanks(const RankOptions& options, RankWatch& watch);

}  // namespace mft
