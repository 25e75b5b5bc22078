// SPDX-License-Identifier: Apache-2.0
// How ranks find each other: rank 0 listens, all others come to it, once for each channel.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "common/base/files.h"
#include "common/base/status.h"
#include "worker/comm/communicator.h"

namespace mft {

// Connections of a rank to another one.
enum class Channel : uint32_t {
  kMain,        // the communicator's calls
  kBackground,  // those of Communicator::background()
  kWatch,       // signs of life (rank_watch.h)
};
inline constexpr std::array kChannels = {Channel::kMain, Channel::kBackground, Channel::kWatch};

struct RankLink {
  int64_t rank = 0;  // at the other end
  std::array<UniqueFd, kChannels.size()> fds;
  UniqueFd& operator[](Channel channel) { return fds[static_cast<size_t>(channel)]; }
  const UniqueFd& operator[](Channel channel) const { return fds[static_cast<size_t>(channel)]; }
};

// Rank 0: a link to each other rank, in their order. Others: the one to rank 0. A visitor that is
// no rank of this job is sent away and told why; a rank of another build, number of ranks or
// transport ends the meeting. Errors as MakeCommunicator.
Result<std::vector<RankLink>> MeetRanks(const RankOptions& options);

}  // namespace mft
