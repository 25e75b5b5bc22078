// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/base/status.h"
#include "mft/v1/job_service.pb.h"
#include "server/events/snapshot.h"

namespace mft::server {

// One page of ListJobs from a snapshot. INVALID_ARGUMENT for a bad size, a damaged token, or one of
// another filter.
Status ListJobsPage(const Snapshot& snapshot,
                    const v1::ListJobsRequest& request,
                    v1::ListJobsResponse& response);

}  // namespace mft::server
