// SPDX-License-Identifier: Apache-2.0
// Checks every line of data files and counts what training would make of them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "worker/data/data_check.h"
#include "worker/data/data_files.h"
#include "worker/data/line_encoder.h"

namespace mft::data {

struct ValidateRequest {
  std::vector<DataFiles> sources;
  const LineEncoder* encoder = nullptr;  // outlives the call
  DataCheckOptions check;
  int threads = 1;
  // Leave FILE.corrected, the good lines, beside a file with bad ones.
  bool create_corrected = false;
  std::function<void(const Finding&)> report;  // from the caller's thread, in order
  // After each line: the file, and about how many bytes of all files are done.
  std::function<void(std::string_view file, int64_t bytes)> progress = [](std::string_view,
                                                                          int64_t) {};
  std::function<bool()> stopped = [] { return false; };
};

struct ValidateReport {
  std::vector<SourceReport> sources;
  std::vector<std::string> corrected;  // files written
  int64_t problems = 0;
};

// Holds some megabytes and a bit a line. Failures are those that no other line could change
// (UNIMPLEMENTED, CANCELLED, a full disk); what is wrong with a line or a file is a finding, and
// the check goes on.
Result<ValidateReport> ValidateData(const ValidateRequest& request);

}  // namespace mft::data
