// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/config/job_spec.h"
#include "common/config/yaml_reader.h"

namespace mft::data {

// The job of a YAML file, or of a job.json as the daemon writes it, with absolute paths.
// INVALID_ARGUMENT lists every violation as "file:line: path: message"; warnings go to stderr.
// `overrides`: --set of a YAML file.
Result<JobSpec> ReadJob(const std::string& path, Overrides overrides = {});

}  // namespace mft::data
