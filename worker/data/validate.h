// SPDX-License-Identifier: Apache-2.0
// Checks every line of data files and counts what training would make of them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "worker/data/data_files.h"
#include "worker/data/line_encoder.h"

namespace mft::data {

struct Finding {
  std::string file;
  int64_t line = 0;  // from 1; 0: the file or source as a whole
  bool warning = false;
  std::string problem_class;  // ProblemClass(); "" of a warning
  std::string message;
};
// "file:line: message".
std::string FindingText(const Finding& finding);

struct ValidateRequest {
  std::vector<DataFiles> sources;
  const LineEncoder* encoder = nullptr;  // outlives the call
  int64_t seq_len = 0;                   // 0: not known
  int threads = 1;
  bool create_corrected =
      false;  // leave FILE.corrected, the good lines, beside a file with bad ones
  std::function<void(const Finding&)> report;  // from the caller's thread, in order
  std::function<bool()> stopped = [] { return false; };
};

struct SourceReport {
  std::string path;
  SourceKind kind = SourceKind::kInstruct;
  double weight = 1.0;
  int64_t files = 0;
  int64_t lines = 0;
  int64_t problems = 0;
  int64_t samples = 0;          // of lines, and ...
  int64_t chunked_samples = 0;  // ... made of them by dynamic chunking
  int64_t samples_without_loss = 0;
  int64_t overlong_samples = 0;  // of more than seq_len rows
  int64_t tokens = 0;            // of all samples, with BOS and EOS
  int64_t loss_tokens = 0;
  int64_t rows = 0;  // token pairs of the samples with loss: what packs are filled with
  int64_t longest_tokens = 0;
};

struct ValidateReport {
  std::vector<SourceReport> sources;
  std::vector<std::string> corrected;  // files written
  int64_t problems = 0;
};

// Failures are those that no other line could change (UNIMPLEMENTED, CANCELLED, a full disk); what
// is wrong with a line or a file is a finding, and the check goes on.
Result<ValidateReport> ValidateData(const ValidateRequest& request);

}  // namespace mft::data
