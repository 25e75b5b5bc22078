// SPDX-License-Identifier: Apache-2.0
// The way to the daemon.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <grpcpp/grpcpp.h>

#include "common/base/status.h"
#include "mft/v1/job_service.grpc.pb.h"
#include "mft/v1/node_service.grpc.pb.h"

namespace mft::client {

// --endpoint, then MFT_ENDPOINT, then `endpoint:` of ~/.config/mftd/mftctl.yaml, then the default
// socket.
Result<std::string> ResolveEndpoint(const std::string& flag);

// A gRPC failure as ours: code, reason of its ErrorInfo, message. UNAVAILABLE names the endpoint
// and says what to do.
Status FromGrpc(const grpc::Status& status, const std::string& endpoint);

class Connection {
 public:
  explicit Connection(std::string endpoint);

  v1::JobService::Stub& jobs() { return *jobs_; }
  v1::NodeService::Stub& node() { return *node_; }
  const std::string& endpoint() const { return endpoint_; }
  Status Convert(const grpc::Status& status) const { return FromGrpc(status, endpoint_); }

  // A unary call with the deadline of 10 s; UNAVAILABLE is retried by the channel.
  template <typename Stub, typename Request, typename Response>
  Status Call(Stub& stub,
              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
              const Request& request,
              Response& response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    return Convert((stub.*method)(&context, request, &response));
  }

 private:
  std::string endpoint_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::NodeService::Stub> node_;
};

}  // namespace mft::client
