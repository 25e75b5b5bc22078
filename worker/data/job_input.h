// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/config/job_spec.h"

namespace mft::data {

// The job of a YAML file, or of a job.json as the daemon writes it, with absolute paths.
// INVALID_ARGUMENT lists every violation as "file:line: path: message"; warnings go to stderr.
Result<JobSpec> ReadJob(const std::string& path);

}  // namespace mft::data
