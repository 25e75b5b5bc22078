// SPDX-License-Identifier: Apache-2.0
#include "server/exec/environment.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace mft::server {

namespace {
constexpr std::array<std::string_view, 4> kDropped = {
    "NOTIFY_SOCKET=", "LISTEN_FDS=", "LISTEN_PID=", "MFT_ATTEMPT="};
}  // namespace

std::vector<std::string> ChildEnvironment() {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const auto is_prefix = [text](std::string_view prefix) { return text.starts_with(prefix); };
    if (std::none_of(kDropped.begin(), kDropped.end(), is_prefix)) {
      environment.emplace_back(text);
    }
  }
  return environment;
}

}  // namespace mft::server
