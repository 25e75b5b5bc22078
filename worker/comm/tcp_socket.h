// SPDX-License-Identifier: Apache-2.0
// Connections of the ranks. All descriptors are close-on-exec; SIGPIPE is never raised.
#pragma once

#include <poll.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include "common/base/files.h"
#include "common/base/status.h"

namespace mft {

using Deadline = std::chrono::steady_clock::time_point;

// Listens on `port` (0: one that is free) of the loopback where `address` is of it, else of every
// interface.
Result<UniqueFd> ListenForRanks(const std::string& address, int port);
Result<int> PortOf(int listener);

// Returns when one of `entries` is ready, which its revents say, or at the deadline. CANCELLED
// where `stop` says so.
Status WaitForAny(std::span<pollfd> entries, Deadline deadline, const std::function<bool()>& stop);

// The next connection. DEADLINE_EXCEEDED; CANCELLED where `stop` says so.
Result<UniqueFd> AcceptRank(int listener, Deadline deadline, const std::function<bool()>& stop);

// Tries until somebody listens. DEADLINE_EXCEEDED names the address; CANCELLED as above.
Result<UniqueFd> ConnectToRank(const std::string& address,
                               int port,
                               Deadline deadline,
                               const std::function<bool()>& stop);

// All of it, or an error: UNAVAILABLE where the connection ends first.
Status SendAll(int fd, std::span<const std::byte> bytes);
Status ReceiveAll(int fd, std::span<std::byte> bytes);
// For small messages of somebody who may never send them: DEADLINE_EXCEEDED; CANCELLED as above.
Status ReceiveAllWithin(int fd,
                        std::span<std::byte> bytes,
                        std::chrono::milliseconds patience,
                        const std::function<bool()>& stop);

}  // namespace mft
