// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/server_callback.h>

#include "mft/v1/job_service.pb.h"
#include "server/rpc/services.h"

namespace mft::server {

// The reactor of one WatchJob: history, then live events, a bookmark after 15 quiet seconds, OK
// after the terminal event.
grpc::ServerWriteReactor<v1::JobEvent>* StartWatch(const ServiceContext& context,
                                                   const v1::WatchJobRequest& request);

}  // namespace mft::server
