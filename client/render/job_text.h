// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "mft/v1/job.pb.h"

namespace mft::client {

// Columns aligned by their widest cell; the first row is the head.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

// "name: value" lines of everything about a job.
std::string FormatJob(const v1::Job& job);
std::string FormatEstimate(const v1::Estimate& estimate, int64_t max_steps);

// The one root cause of a job's state and what to do next.
std::string FormatWhy(const v1::Job& job);

}  // namespace mft::client
