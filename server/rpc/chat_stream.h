// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/server_callback.h>

#include "mft/v1/job_service.pb.h"
#include "server/rpc/services.h"

namespace mft::server {

// The reactor of one Chat: a thread of its own talks to `mft-worker generate` in a slot that the
// control loop leased.
grpc::ServerBidiReactor<v1::ChatRequest, v1::ChatResponse>* StartChat(
    const ServiceContext& context);

}  // namespace mft::server
