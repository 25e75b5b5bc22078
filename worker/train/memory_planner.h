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
#include "worker/kernels/kernels.h"

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
  int64_t longest_document = 0;         // rows
  int64_t mean_document = 0;            // rows; 0: all are as long as the longest
  bool deterministic = false;           // attention's backward pass on a device
  int64_t world_size = 1;               // ranks that can hold a part of the weights each
  const KernelTable* device = nullptr;  // what trains it; null: the CPU
  int64_t host_memory = 0;  // with a device: what this rank may pin for offloaded blocks
  bool quantise = false;    // the frozen base is in fp8
};

// Where the frozen weights are; all give the same bits.
enum class WeightPlacement {
  kResident,   // MakeResidentWeights, MakeDeviceWeights
  kSharded,    // MakeShardedWeights, MakeShardedDeviceWeights: a part on every rank
  kOffloaded,  // MakeOffloadedWeights: read from the file; MakeOffloadedDeviceWeights: on the host
};
std::string_view PlacementName(WeightPlacement placement);  // "resident", "sharded", "offloaded"

struct MemoryForecast {
  // This process as it is now, and LibTorch's buffers and threads; of a device what its libraries
  // take, and what attention allocates.
  int64_t program = 0;
  WeightBytes weights;
  int64_t trained = 0;      // weight, gradient, two moments of what is trained
  int64_t activations = 0;  // MemoryPlan::total()
  int64_t peak() const { return needed() + weights.mapped; }
  // What must be there at the same time.
  int64_t needed() const { return program + weights.copied + trained + activations; }
};
// Of the device's memory where the job has one.
MemoryForecast ForecastMemory(const MemoryJob& job,
                              RecomputePlan policy,
                              WeightPlacement placement = WeightPlacement::kResident,
                              const ExecutionSizes& sizes = kCpuSizes);

std::string_view PolicyName(RecomputePolicy policy);  // "nothing", "mlp", "block"
// "mlp", or "mlp of 3 of 8 blocks, otherwise nothing".
std::string DescribePlan(const RecomputePlan& plan, int64_t num_blocks);

// The machine's memory, or less where a control group's or the process's own limit (RLIMIT_DATA) is
// lower. Of a device what is free now.
Result<int64_t> AllowedMemory(const KernelTable* device = nullptr);

struct MemoryChoice {
  RecomputePlan policy = RecomputePolicy::kBlock;
  WeightPlacement placement = WeightPlacement::kResident;
  MemoryForecast forecast;
  ExecutionSizes sizes = kCpuSizes;
};
// The policies that recompute least, from `wish` for every block on, with which the job's peak is
// at most `allowed` bytes (of this rank), the weights in memory; if there is none, with the weights
// sharded where there are several ranks; if there is none either, with the weights offloaded. All
// give the same bits. On a device a chunk is as long as the memory allows: with resident weights
// shorter ones come before computing more again, with others, which each chunk moves once more,
// after it. RESOURCE_EXHAUSTED (NOT_ENOUGH_MEMORY) says what the job needs, and the longest
// document with which it would fit. Ranks with the same job and limit choose the same: whoever
// shards must see to it that all do.
Result<MemoryChoice> ChooseMemory(const MemoryJob& job, RecomputePolicy wish, int64_t allowed);

}  // namespace mft
