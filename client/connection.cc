// SPDX-License-Identifier: Apache-2.0
#include "client/connection.h"

#include <unistd.h>

#include <cstdlib>

#include <yaml-cpp/yaml.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace mft::client {

namespace {
// Retries of unary calls (daemon.md 3.4): UNAVAILABLE only.
constexpr const char* kServiceConfig =
    R"({"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4,
  "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]})";

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string UserConfigPath() {
  const std::string base = Variable("XDG_CONFIG_HOME");
  return base.empty() ? JoinPath(Variable("HOME"), ".config/mftd/mftctl.yaml")
                      : JoinPath(base, "mftd/mftctl.yaml");
}

Result<std::string> EndpointOfUser() {
  const std::string path = UserConfigPath();
  if (!PathExists(path)) {
    return std::string();
  }
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, size_t{1} << 16));
  try {
    const YAML::Node root = YAML::Load(text);
    return root["endpoint"] ? root["endpoint"].as<std::string>() : std::string();
  } catch (const YAML::Exception& error) {
    return InvalidArgument(StrCat(path, ": ", error.what()));
  }
}

std::string DefaultEndpoint() {
  const std::string runtime = Variable("XDG_RUNTIME_DIR");
  return runtime.empty() ? StrCat("unix:/tmp/mftd-", geteuid(), "/mftd.sock")
                         : StrCat("unix:", runtime, "/mftd/mftd.sock");
}
}  // namespace

Result<std::string> ResolveEndpoint(const std::string& flag) {
  if (!flag.empty()) {
    return flag;
  }
  if (const std::string from_environment = Variable("MFT_ENDPOINT"); !from_environment.empty()) {
    return from_environment;
  }
  MFT_ASSIGN_OR_RETURN(std::string from_user, EndpointOfUser());
  return from_user.empty() ? DefaultEndpoint() : std::move(from_user);
}

Status FromGrpc(const grpc::Status& status, const std::string& endpoint) {
  if (status.ok()) {
    return Status::Ok();
  }
  const auto code = static_cast<Code>(status.error_code());
  std::string reason;
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) {
    for (const auto& any : details.details()) {
      google::rpc::ErrorInfo info;
      if (any.UnpackTo(&info)) {
        reason = info.reason();
      }
    }
  }
  if (reason.empty() && code == Code::kUnavailable) {
    return {
        code,
        StrCat(
            "cannot reach mftd at ", endpoint, ": is it running? (", status.error_message(), ")")};
  }
  if (code == Code::kDeadlineExceeded) {
    return {code, StrCat("mftd at ", endpoint, " did not answer in time")};
  }
  return {code, reason, status.error_message()};
}

Connection::Connection(std::string endpoint) : endpoint_(std::move(endpoint)) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  arguments.SetMaxReceiveMessageSize(16 << 20);
  const auto channel =
      grpc::CreateCustomChannel(endpoint_, grpc::InsecureChannelCredentials(), arguments);
  jobs_ = v1::JobService::NewStub(channel);
  node_ = v1::NodeService::NewStub(channel);
}

}  // namespace mft::client
