// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace mft::server {

// The daemon's environment for its children, without what systemd and an outer attempt say to this
// process alone.
std::vector<std::string> ChildEnvironment();

}  // namespace mft::server
