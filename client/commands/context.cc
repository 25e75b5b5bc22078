// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include <google/protobuf/util/json_util.h>

#include "client/commands/commands.h"

namespace mft::client {

namespace {
int Report(const Result<int>& result) {
  if (result.ok()) {
    return *result;
  }
  std::fprintf(stderr, "mftctl: error: %s\n", result.status().message().c_str());
  return ExitCodeFor(result.status().code());
}
}  // namespace

void Context::Run(const std::function<Result<int>(Connection&)>& body) {
  RunLocal([&]() -> Result<int> {
    MFT_ASSIGN_OR_RETURN(const std::string endpoint, ResolveEndpoint(endpoint_flag));
    Connection connection(endpoint);
    return body(connection);
  });
}

void Context::RunLocal(const std::function<Result<int>()>& body) {
  exit_code = Report(body());
}

void PrintJson(const google::protobuf::Message& message) {
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text);
  MFT_CHECK(status.ok(), status.ToString());
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

void PrintWarning(const std::string& message) {
  std::fprintf(stderr, "mftctl: warning: %s\n", message.c_str());
}

}  // namespace mft::client
