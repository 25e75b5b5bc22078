// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mft/v1/node_service.grpc.pb.h"
#include "server/rpc/services.h"

namespace mft::server {

// mft.v1.NodeService, from the snapshot.
class NodeServiceImpl final : public v1::NodeService::CallbackService {
 public:
  explicit NodeServiceImpl(const ServiceContext& context) : context_(context) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* call,
                                          const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;
  grpc::ServerUnaryReactor* ListDevices(grpc::CallbackServerContext* call,
                                        const v1::ListDevicesRequest* request,
                                        v1::ListDevicesResponse* response) override;

 private:
  ServiceContext context_;
};

}  // namespace mft::server
