// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include <grpcpp/support/status.h>

#include "mft/v1/job_service.pb.h"
#include "server/rpc/services.h"

namespace mft::server {

// All of SubmitJob: text checks, checks against the node's files, the estimate, the control loop.
// Blocks on files, so on a task thread. `done` is called once, maybe on the control thread.
void Submit(const ServiceContext& context,
            const v1::SubmitJobRequest& request,
            v1::SubmitJobResponse& response,
            std::function<void(const grpc::Status&)> done);

}  // namespace mft::server
