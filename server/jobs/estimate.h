// SPDX-License-Identifier: Apache-2.0
// What a job will need: the figures of mft.v1.Estimate, before and after its data is tokenised.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "common/config/job_spec.h"

namespace mft::server {

// The training data, known (from the token cache) or derived from file sizes.
struct DataFacts {
  bool exact = false;
  int64_t samples = 0;
  int64_t tokens = 0;
  int64_t loss_tokens = 0;  // 0: unknown
};

// Sizes of the training files, at 4 bytes a token, and their lines, counted in the first MiB of
// each. Reads files: not for a thread that must not block.
Result<DataFacts> DataFactsFromFiles(const JobSpec& spec);

// The machine, as far as it matters here. The defaults are a CPU.
struct NodeFacts {
  std::string device = "cpu";      // resolved: cpu | cuda
  std::string precision = "fp32";  // resolved: fp32 | bf16
  int cores = 1;                   // that the job may use
  double flops_per_second =
      0;  // sustained, of one rank; 0: derived from `cores`, unknown with cuda
};

struct JobEstimate {
  bool exact = false;
  int64_t samples = 0;
  int64_t tokens = 0;
  int64_t loss_tokens = 0;
  int64_t tokens_per_step = 0;
  double steps_per_epoch = 0;
  double epochs = 0;
  int64_t weights_bytes = 0;
  int64_t trainable_parameters = 0;
  int64_t memory_bytes = 0;  // peak of one rank
  int64_t disk_bytes = 0;    // checkpoints kept, and token cache
  double seconds = 0;        // of training; 0: unknown
  std::vector<std::string> notes;
};

// `weights_bytes`: of the model's file, which is mapped as it is; 0: all in the node's precision.
JobEstimate EstimateJob(const JobSpec& spec,
                        const ModelParams& params,
                        const DataFacts& data,
                        const NodeFacts& node,
                        int64_t weights_bytes = 0);

}  // namespace mft::server
