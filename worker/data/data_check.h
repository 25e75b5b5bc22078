// SPDX-License-Identifier: Apache-2.0
// What is wrong with a job's data and what is in it: the one judge of `validate` and of `prepare`,
// which is the daemon's VALIDATING.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/config/job_spec.h"
#include "common/dataset/line_reader.h"
#include "worker/data/data_files.h"
#include "worker/data/duplicate_counter.h"
#include "worker/data/length_histogram.h"
#include "worker/data/line_encoder.h"

namespace mft::data {

struct Finding {
  std::string file;
  int64_t line = 0;  // from 1; 0: the file or source as a whole
  bool warning = false;
  std::string problem_class;  // ProblemClass(); "" of a warning
  std::string message;
};
std::string FindingPlace(const Finding& finding);  // "file:line"
// "file:line: class: message", "file:line: warning: message".
std::string FindingText(const Finding& finding);

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
  LengthHistogram lengths;        // of all samples
  int64_t duplicates = 0;         // good lines that are equal to an earlier one of the source
  bool duplicates_exact = true;   // false: an estimate
  std::string first_duplicate{};  // "file:line"
};

struct DataCheckOptions {
  int64_t seq_len = 0;            // 0: not known
  int64_t ranks = 1;              // that a source is dealt out to, line by line (packing reference)
  bool count_duplicates = false;  // takes up to 32 MiB
};
// Those of a job.
DataCheckOptions DataCheckOptionsFor(const JobSpec& spec);

// Threads: one at a time.
class DataCheck {
 public:
  using Report = std::function<void(const Finding&)>;

  DataCheck(const DataCheckOptions& options, Report report)
      : options_(options), report_(std::move(report)) {}

  void BeginSource(const DataFiles& source);
  void Add(const std::string& file, const DataLine& line, const EncodedLine& encoded);
  // Counts a sample that was checked when its cache was made; `line` from 0.
  void AddCached(const SampleInfo& sample, bool chunked);
  // Of the source's file, or, with line 0, of it as a whole.
  void AddProblem(const std::string& file, int64_t line, const Status& problem);
  // Reports what is wrong with the source as a whole.
  void EndSource();

  int64_t problems() const { return problems_; }
  const std::string& first_problem() const { return first_problem_; }  // FindingText()
  const std::vector<SourceReport>& sources() const { return sources_; }

 private:
  SourceReport& source() { return sources_.back(); }
  void CountDuplicate(const std::string& file, const DataLine& line);
  void CountSample(const SampleInfo& sample);
  void Warn(std::string message);
  void CheckTrainable();

  DataCheckOptions options_;
  Report report_;
  int64_t problems_ = 0;
  std::string first_problem_;
  std::vector<SourceReport> sources_;
  std::optional<DuplicateCounter> seen_;  // of the source
  std::vector<bool> trainable_;           // of the source, by rank
};

}  // namespace mft::data
