// SPDX-License-Identifier: Apache-2.0
// From a job's data files to a published token cache. Every line is checked; only data without a
// problem is published.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/config/job_spec.h"

namespace mft::data {

// What a preparation tells while it goes. Threads: called from the thread that called PrepareData.
class PrepareObserver {
 public:
  virtual ~PrepareObserver() = default;
  virtual void Phase(std::string_view phase,
                     std::string_view detail) = 0;  // kPhase* of common/journal/record.h
  virtual void Problem(std::string_view text) = 0;  // "file:line: message"
  virtual void Warning(std::string_view text) = 0;
  virtual bool Stopped() = 0;  // asked often; true ends the preparation with CANCELLED
};

struct PrepareRequest {
  JobSpec spec;            // absolute paths
  std::string cache_root;  // publishes <cache_root>/<content key>/ ...
  std::string directory;   // ... or, where this is set, exactly here
  int threads = 1;
};

struct PreparedData {
  std::string directory;  // of the cache
  bool reused = false;    // it was there already
  int64_t samples = 0;    // of the training sources
  int64_t tokens = 0;
  int64_t loss_tokens = 0;
  int64_t eval_samples = 0;
  double steps_per_epoch = 0;
  double epochs = 0;  // in max_steps
};

// INVALID_ARGUMENT with reason VALIDATION_FAILED after every problem was reported, CANCELLED where
// the observer says so, otherwise what went wrong: a missing file, a full disk, a tokenizer that
// does not fit the model.
Result<PreparedData> PrepareData(const PrepareRequest& request, PrepareObserver& observer);

}  // namespace mft::data
