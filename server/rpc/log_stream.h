// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/server_callback.h>

#include "mft/v1/job_service.pb.h"
#include "server/rpc/services.h"

namespace mft::server {

// The reactor of one ReadLogs: chunks of a rank's log; with `follow` until the job has ended and
// the log is read.
grpc::ServerWriteReactor<v1::ReadLogsResponse>* StartReadLogs(const ServiceContext& context,
                                                              const v1::ReadLogsRequest& request);

}  // namespace mft::server
