// SPDX-License-Identifier: Apache-2.0
// What validate prints on standard output, for people or for programs.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "common/base/status.h"
#include "common/config/job_spec.h"
#include "worker/data/validate.h"

namespace mft::data {

// How long training takes on this machine's CPU, without evaluation. What a GPU takes is known once
// it has made a few steps.
struct CpuTime {
  double seconds = 0;
  int64_t threads = 0;
};

struct ReportedJob {
  JobSpec spec;
  std::optional<CpuTime> cpu_time;  // where one may take it, and the model is known
};

// Findings are printed as they come. Threads: one.
class ReportPrinter {
 public:
  virtual ~ReportPrinter() = default;
  virtual void Print(const Finding& finding) = 0;
  // The end of the report; `job`: null where only files are checked.
  virtual void Finish(const ValidateReport& report, const ReportedJob* job) = 0;
  // The end instead, where there is no report.
  virtual void Fail(const Status& status) = 0;
};

// Lines of text; failures go to standard error.
std::unique_ptr<ReportPrinter> MakeTextPrinter();

// One JSON object: "problems" [{file, line, severity, class, message}], then "num_problems",
// "sources" (with their "length_histogram"), "corrected" and, for a job, "expected"; or "error"
// {code, message}.
std::unique_ptr<ReportPrinter> MakeJsonPrinter();

// What a job will make of its data.
struct Expected {
  double steps_per_epoch = 0;
  double epochs = 0;                  // in max_steps
  int64_t train_tokens = 0;           // rows of max_steps
  std::vector<double> source_epochs;  // a training source each: by its share of the weights
};

// Nothing where nothing was encoded.
std::optional<Expected> ExpectedOf(const ValidateReport& report, const JobSpec& spec);

}  // namespace mft::data
