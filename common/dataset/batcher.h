// SPDX-License-Identifier: Apache-2.0
// The sequence of packs and what each rank takes of it (numerics.md, "What is semantics";
// finetune-spec 2.8 to 2.10).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/config/job_spec.h"
#include "common/dataset/token_cache.h"

namespace mft {

// One microbatch of one rank as plain rows, ready to become tensors. T = rows.
struct MicroBatch {
  std::vector<int32_t> x;     // [T] input tokens
  std::vector<int32_t> y;     // [T] targets
  std::vector<uint8_t> mask;  // [T] 1 where the target carries loss
  std::vector<float>
      row_weight;  // [T] already normalised by the step's global count (numerics.md, "Row weights")
  std::vector<int32_t>
      cu_seqlens;  // [segments + 1] row offsets; positions restart at 0 in each segment
  std::vector<int64_t>
      pack;  // [segments] number of the pack that the segment is in, from 0 (dropout keys)
  std::vector<int32_t>
      pack_row;             // [segments] row of that pack at which it begins (dropout counters)
  int64_t loss_tokens = 0;  // masked rows of this microbatch
};

struct StepBatch {
  std::vector<MicroBatch> micro;  // num_microbatches of this rank
  int64_t loss_tokens = 0;        // over all ranks and microbatches
  int64_t tokens = 0;             // rows over all ranks and microbatches
};

struct BatcherOptions {
  int64_t seed = 0;
  int64_t seq_len = 0;
  int64_t batch_size = 1;  // packs of a microbatch
  int64_t num_microbatches = 1;
  int world_size = 1;
  int rank = 0;
  std::string packing = "whole";    // whole | reference
  std::string loss_norm = "token";  // token | reference
  bool shuffle_text = false;
  bool shuffle_instruct = true;
  std::vector<double>
      weights;  // of the training sources, > 0, in the cache's order; empty: as in the cache
};

// INVALID_ARGUMENT where the sources of `data` or `instruct_data` cannot be parsed.
Result<BatcherOptions> BatcherOptionsFor(const JobSpec& spec, int world_size, int rank);

// Threads: one at a time. Lifetime: `cache` must outlive it.
class Batcher {
 public:
  // INVALID_ARGUMENT where a source (with `reference`: a rank's share of one) has nothing to train
  // on, which would otherwise never end.
  static Result<std::unique_ptr<Batcher>> Create(const TokenCache& cache,
                                                 const BatcherOptions& options);
  virtual ~Batcher() = default;
  // The batch of optimizer step `step`, counted from 1. A pure function of (data, options, step):
  // resuming needs nothing else. Steps in order are cheap; a jump replays the packing (lengths
  // only) up to there. DATA_LOSS where the cache holds ids or masks that its index excludes.
  virtual Result<StepBatch> Step(int64_t step) = 0;
};

// Evaluation: every sample of the evaluation sources exactly once, whole and alone as a segment;
// over-long ones split at seq_len with their mask; what carries no loss is left out. Samples are
// grouped in order into chunks of at most `max_rows` rows (a longer segment is a chunk of its own);
// rank r of W takes chunks r, r + W, ... row_weight is the mask (1 or 0): the caller divides by the
// global count. `pack` is the chunk's number.
Result<std::vector<MicroBatch>> EvalBatches(
    const TokenCache& cache, int64_t seq_len, int64_t max_rows, int world_size, int rank);

}  // namespace mft
