// SPDX-License-Identifier: Apache-2.0
#include "worker/comm/rendezvous.h"

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"

namespace mft {

namespace {
constexpr size_t kMaxBytes = 4096;
constexpr mode_t kOwnerOnly = 0600;
}  // namespace

Status PublishEndpoint(const std::string& path,
                       const std::string& token,
                       const Endpoint& endpoint) {
  const Json json = {{"token", token}, {"address", endpoint.address}, {"port", endpoint.port}};
  return WriteFileAtomic(path, DumpJson(json) + "\n", kOwnerOnly);
}

Result<Endpoint> ReadEndpoint(const std::string& path, const std::string& token) {
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxBytes));
  const auto json = ParseJson(text);
  if (!json.ok() || !json->is_object() || StringOr(*json, "token", "") != token) {
    return NotFound(StrCat(path, " is not of this job's ranks"));
  }
  return Endpoint{.address = StringOr(*json, "address", ""),
                  .port = static_cast<int>(IntOr(*json, "port", 0))};
}

}  // namespace mft
