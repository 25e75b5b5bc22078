// SPDX-License-Identifier: Apache-2.0
// The peak of a training process, predicted before anything of it is allocated; the recompute
// policy that the memory allows; a job that cannot fit is refused with what would.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/activation_plan.h"
#include "common/checkpoint/model_params.h"
#include "common/checkpoint/model_weights.h"

namespace mft {

// The reason of a job that is refused: trying again cannot help.
inline constexpr std::string_view kReasonNotEnoughMemory = "NOT_ENOUGH_MEMORY";

struct WeightBytes {
  int64_t mapped = 0;  // pages of the file: the kernel may drop them and read them again
  int64_t copied = 0;  // what kernels do not read from the mapping
  int64_t head = 0;    // embeddings and output, of both
  int64_t block = 0;   // the largest, as a source that has two of them holds it
  int64_t blocks = 0;  // of all of them in the file
};
// Of the weight sources, from the files' headers alone.
WeightBytes WeightBytesOf(const ModelWeights& files);

struct MemoryJob {
  ModelParams params;
  WeightBytes weights;
  int64_t rank = 16;
  std::vector<std::string> target_modules;
  bool full = false;  // every weight is trained, there are no adapters
  double dropout = 0;
  int64_t microbatch_rows = 0;
  int64_t longest_document = 0;  // rows
  int64_t world_size = 1;        // ranks that can hold a part of the weights each
};

// Where the frozen weights are; all give the same bits.
enum class WeightPlacement {
  kResident,   // MakeResidentWeights
  kSharded,    // MakeShardedWeights: a part on every rank
  kOffloaded,  // MakeOffloadedWeights
};
std::string_view PlacementName(WeightPlacement placement);  // "resident", "sharded", "offloaded"

struct MemoryForecast {
  int64_t program = 0;  // this process as it is now, and LibTorch's buffers and threads
  WeightBytes weights;
  int64_t trained = 0;      // weight, gradient, two moments of what is trained
  int64_t activations = 0;  // MemoryPlan::total()
  int64_t peak() const { return needed() + weights.mapped; }
  // What must be there at the same time.
  int64_t needed() const { return program + weights.copied + trained + activations; }
};
MemoryForecast ForecastMemory(const MemoryJob& job,
                              RecomputePlan policy,
                              WeightPlacement placement = WeightPlacement::kResident);

std::string_view PolicyName(RecomputePolicy policy);  // "nothing", "mlp", "block"
// "mlp", or "mlp of 3 of 8 blocks, otherwise nothing".
std::string DescribePlan(const RecomputePlan& plan, int64_t num_blocks);

// The machine's memory, or less where a control group's or the process's own limit (RLIMIT_DATA) is
// lower.
Result<int64_t> AllowedMemory();

struct MemoryChoice {
  RecomputePlan policy = RecomputePolicy::kBlock;
  WeightPlacement placement = WeightPlacement::kResident;
  bool offload = false;  // placement is kOffloaded
  MemoryForecast forecast;
};
// The policies that recompute least, from `wish` for every block on, with which the job's peak is
// at most `allowed` bytes (of this rank), the weights in memory; if there is none, with the weights
// sharded where there are several ranks; if there is none either, with the weights offloaded.
// RESOURCE_EXHAUSTED (NOT_ENOUGH_MEMORY) says what the job needs, and the longest document with
// which it would fit. Ranks with the same job and limit choose the same: whoever shards must see to
// it that all do.
Result<MemoryChoice> ChooseMemory(const MemoryJob& job, RecomputePolicy wish, int64_t allowed);

}  // namespace mft
