// SPDX-License-Identifier: Apache-2.0
// Where rank 0 listens, told in a file that all ranks can read: no port is chosen beforehand, which
// somebody else could have taken meanwhile.
#pragma once

#include <string>

#include "common/base/status.h"

namespace mft {

struct Endpoint {
  std::string address;
  int port = 0;
};

// Readable by the owner alone: it holds the job's token.
Status PublishEndpoint(const std::string& path, const std::string& token, const Endpoint& endpoint);

// NOT_FOUND where nothing is there yet, or what another job or attempt (of another token) left.
Result<Endpoint> ReadEndpoint(const std::string& path, const std::string& token);

}  // namespace mft
