// SPDX-License-Identifier: Apache-2.0
// What a checkpoint remembers beside weights and moments: state/state.json.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/json.h"
#include "common/base/status.h"
#include "worker/train/choice.h"
#include "worker/train/metrics_log.h"

namespace mft {

// The settings that decide which data a step sees, and the weights that it starts from. Equal ones
// make a resumed run go on exactly.
struct DataIdentity {
  std::string cache;  // content key of the token cache
  int64_t seed = 0;
  int64_t seq_len = 0;
  int64_t packs_per_step = 1;  // G
  std::string packing;
  std::string loss_norm;
  bool shuffle_text = false;
  bool shuffle_instruct = false;
  std::string base_weights;  // ModelWeights::Fingerprint; "": not known (older states, full runs)
};

struct RunState {
  int64_t step = 0;       // optimizer steps done, skipped ones included
  int64_t updates = 0;    // Adam's counter
  int64_t max_steps = 0;  // of the run that wrote it: the schedule depends on it
  int64_t ranks = 1;      // with so many the job's own num_microbatches makes data.packs_per_step
  double train_loss = 0;  // of the last step
  MetricsLengths metrics;
  DataIdentity data;
  Choice choice;
};

Json RunStateToJson(const RunState& state);
Result<RunState> RunStateFromJson(const Json& json);

// Reads state/state.json. DATA_LOSS names what is wrong.
Result<RunState> ReadRunState(const std::string& checkpoint_dir);

// One line of JSON: equal for equal identities.
std::string DescribeIdentity(const DataIdentity& identity);

// "seed 1 -> 2, seq_len 64 -> 128"; "" where equal.
std::string DescribeDifferences(const DataIdentity& before, const DataIdentity& now);

}  // namespace mft
