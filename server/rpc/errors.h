// SPDX-License-Identifier: Apache-2.0
// mft::Status to grpc::Status with google.rpc details (AIP-193): always an ErrorInfo of the domain
// mftd.dev, for a job file's violations a BadRequest too.
#pragma once

#include <map>
#include <span>
#include <string>

#include <grpcpp/support/status.h>

#include "common/base/status.h"
#include "common/config/yaml_reader.h"

namespace mft::server {

inline constexpr const char* kErrorDomain = "mftd.dev";

// ErrorInfo.reason is the status's own, else its code's name.
grpc::Status ToGrpcStatus(const Status& status,
                          const std::map<std::string, std::string>& metadata = {});

// INVALID_ARGUMENT (INVALID_JOB_SPEC); the message lists the violations, one a line.
grpc::Status ToGrpcStatus(std::span<const Violation> violations);

Status JobNotFound(const std::string& job_id);

}  // namespace mft::server
