// SPDX-License-Identifier: Apache-2.0
#include "worker/train/memory_planner.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "worker/model/device_weights.h"
#include "worker/model/transformer.h"
#include "worker/model/weight_source.h"
#include "worker/train/reporter.h"

namespace mft {

namespace {
// Packed panels of matrix products, the threads' stacks, LibTorch's first call.
constexpr int64_t kRuntimeBytes = int64_t{16} << 20;

// memory.max of the control group and those above it (version 2), which may be "max".
int64_t ControlGroupLimit(int64_t otherwise) {
  const auto membership = ReadFile("/proc/self/cgroup");
  if (!membership.ok() || !membership->starts_with("0::")) {
    return otherwise;
  }
  std::string group = membership->substr(3, membership->find('\n') - 3);
  int64_t limit = otherwise;
  for (;;) {
    const auto text = ReadFile(StrCat("/sys/fs/cgroup", group, "/memory.max"));
    int64_t bytes = 0;
    if (text.ok() &&
        std::from_chars(text->data(), text->data() + text->size(), bytes).ec == std::errc()) {
      limit = std::min(limit, bytes);
    }
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) {
      return limit;
    }
    group.resize(slash);
  }
}

// In the order of what they recompute: a block more each.
std::vector<RecomputePlan> PlansFrom(RecomputePolicy wish, int64_t num_blocks) {
  std::vector<RecomputePlan> plans;
  for (const RecomputePolicy policy : {RecomputePolicy::kNothing, RecomputePolicy::kMlp}) {
    for (int64_t more = 0; policy >= wish && more < num_blocks; ++more) {
      plans.emplace_back(policy, more);
    }
  }
  plans.emplace_back(RecomputePolicy::kBlock);
  return plans;
}

// Of a device: CUDA's and cuBLAS's code and workspaces, pieces that LibTorch's allocator keeps.
constexpr int64_t kDeviceRuntimeBytes = int64_t{1} << 30;

// What the backward pass of attention takes itself. FlashAttention: its own outputs, and sums in
// fp32 with 128 rows more for each document, of which there are several where those of one would
// not fill the device and the order of adding up must not matter. cuDNN: gradients of q, k and v of
// every query head in fp32. Which it will be is chosen later.
int64_t AttentionBytes(const MemoryJob& job, int64_t rows) {
  constexpr int64_t kRowsMore = 128;
  constexpr int64_t kMultiprocessors = 148;  // of the largest device
  const ModelParams& params = job.params;
  const int64_t q = params.n_heads * params.head_dim;
  const int64_t kv = params.n_kv_heads * params.head_dim;
  const int64_t mean = job.mean_document > 0 ? job.mean_document : job.longest_document;
  const int64_t documents = std::max<int64_t>(1, rows / std::max<int64_t>(1, mean));
  const int64_t teams = std::max<int64_t>(1, rows / job.longest_document) * params.n_heads;
  const int64_t sums = job.deterministic ? (kMultiprocessors + teams - 1) / teams : 1;
  const int64_t flash =
      rows * (2 * q + 2 * 2 * (q + kv)) + sums * (rows + kRowsMore * documents) * 4 * q;
  const int64_t cudnn = rows * 3 * 4 * q;
  return std::max(flash, cudnn) + rows * 2 * params.n_heads * 4;
}

// Of an fp8 product of the backward pass: the largest weight transposed, and its scales.
int64_t TransposedWeightBytes(const ModelParams& params) {
  const int64_t widest = std::max(params.hidden_dim, params.n_heads * params.head_dim);
  return params.dim * widest + 4 * ScaleStride(params.dim) * ScaleStride(widest);
}

DeviceWeightBytes WeightBytesOnDevice(const MemoryJob& job) {
  return DeviceWeightBytesOf(job.params, job.device->type, job.quantise);
}

int64_t FrozenOnDevice(const MemoryJob& job, WeightPlacement placement) {
  const DeviceWeightBytes weights = WeightBytesOnDevice(job);
  switch (placement) {
    case WeightPlacement::kResident:
      return weights.head + weights.blocks;
    case WeightPlacement::kSharded:
      return weights.head + 2 * weights.block + weights.blocks / job.world_size;
    case WeightPlacement::kOffloaded:
      break;
  }
  return weights.head + 2 * weights.block;
}

MemoryForecast ForecastOnDevice(const MemoryJob& job,
                                const MemoryPlan& plan,
                                int64_t rows,
                                WeightPlacement placement) {
  const ElementType type = job.device->type;
  const int64_t copy = type == ElementType::kBF16 ? ElementBytes(type) : 0;
  const int64_t trained = job.full ? TotalParameters(job.params)
                                   : LoraParameters(job.params, job.rank, job.target_modules);
  const int64_t transposed = job.quantise ? TransposedWeightBytes(job.params) : 0;
  return {.program = kDeviceRuntimeBytes + AttentionBytes(job, rows) + transposed,
          .weights = {.copied = job.full ? 0 : FrozenOnDevice(job, placement)},
          .trained = (kTrainedStateBytes + copy) * trained,
          .activations = plan.total()};
}

std::vector<ExecutionSizes> SizesToTry(const MemoryJob& job) {
  if (job.device == nullptr) {
    return {kCpuSizes};
  }
  std::vector<ExecutionSizes> sizes;
  for (const int64_t rows : kGpuChunkRows) {
    sizes.push_back(GpuSizes(rows));
  }
  return sizes;
}

// In the order in which they are tried.
std::vector<WeightPlacement> PlacementsOf(const MemoryJob& job) {
  std::vector<WeightPlacement> placements = {WeightPlacement::kResident};
  if (job.full) {
    return placements;
  }
  if (job.world_size > 1) {
    placements.push_back(WeightPlacement::kSharded);
  }
  if (job.device == nullptr || WeightBytesOnDevice(job).blocks <= job.host_memory) {
    placements.push_back(WeightPlacement::kOffloaded);
  }
  return placements;
}

// How a job may run, in the order in which it is tried.
std::vector<MemoryChoice> ChoicesOf(const MemoryJob& job, RecomputePolicy wish) {
  std::vector<MemoryChoice> choices;
  const std::vector<RecomputePlan> plans = PlansFrom(wish, job.params.n_layers);
  const std::vector<ExecutionSizes> sizes = SizesToTry(job);
  for (const WeightPlacement placement : PlacementsOf(job)) {
    // A chunk costs moving all blocks, where they move.
    const bool plans_first = placement == WeightPlacement::kResident;
    for (size_t i = 0; i < plans.size() * sizes.size(); ++i) {
      const size_t plan = plans_first ? i / sizes.size() : i % plans.size();
      const size_t size = plans_first ? i % sizes.size() : i / plans.size();
      choices.push_back({.policy = plans[plan], .placement = placement, .sizes = sizes[size]});
    }
  }
  return choices;
}

// With everything recomputed.
MemoryForecast LeastMemory(const MemoryJob& job) {
  return ForecastMemory(
      job, RecomputePolicy::kBlock, PlacementsOf(job).back(), SizesToTry(job).back());
}

// The longest document with which the job would fit; 0: none.
int64_t LongestThatFits(MemoryJob job, int64_t allowed) {
  int64_t fits = 0;
  int64_t too_long = job.longest_document;
  while (too_long - fits > 1) {
    const int64_t middle = fits + (too_long - fits) / 2;
    job.longest_document = middle;
    job.microbatch_rows = std::min(job.microbatch_rows, std::max(middle, kTargetChunkRows));
    const MemoryForecast least = LeastMemory(job);
    (least.peak() <= allowed ? fits : too_long) = middle;
  }
  return fits;
}
}  // namespace

WeightBytes WeightBytesOf(const ModelWeights& files) {
  WeightBytes bytes{.block = BlockBufferBytes(files)};
  for (const auto& [name, tensor] : files.tensors()) {
    const auto size = static_cast<int64_t>(tensor.data.size());
    int64_t copied = files.IsReordered(name) ? size : 0;
    if (!UsedWhereMapped(tensor)) {
      const auto elements = size / static_cast<int64_t>(DTypeSize(tensor.dtype));
      copied += elements * static_cast<int64_t>(sizeof(float));
    }
    bytes.mapped += size;
    bytes.copied += copied;
    const bool of_block = name.starts_with("layers.");
    bytes.head += of_block ? 0 : size + copied;
    bytes.blocks += of_block ? size : 0;
  }
  return bytes;
}

MemoryForecast ForecastMemory(const MemoryJob& job,
                              RecomputePlan policy,
                              WeightPlacement placement,
                              const ExecutionSizes& sizes) {
  WeightBytes weights = job.weights;
  if (job.full) {  // the file is read into the masters, and let go of
    weights = {};
  } else if (placement != WeightPlacement::kResident) {
    const bool shares = placement == WeightPlacement::kSharded;
    weights = {.mapped = shares ? job.weights.blocks / job.world_size : 0,
               .copied = job.weights.head + 2 * job.weights.block};
  }
  const int64_t rows = ChunkRows(job.microbatch_rows, job.longest_document, sizes);
  const MemoryPlan plan =
      Transformer::PlanMemory(job.params,
                              LoraInnerColumns(job.params, job.rank, job.target_modules),
                              {.policy = policy,
                               .max_rows = rows,
                               .max_positions = job.longest_document,
                               .dropout = job.dropout,
                               .sizes = sizes,
                               .type = job.device == nullptr ? ElementType::kF32 : job.device->type,
                               .quantised_base = job.quantise});
  if (job.device != nullptr) {
    return ForecastOnDevice(job, plan, rows, placement);
  }
  return {.program = ReadProcessMemory().resident_bytes + kRuntimeBytes,
          .weights = weights,
          .trained = kTrainedStateBytes *
                     (job.full ? TotalParameters(job.params)
                               : LoraParameters(job.params, job.rank, job.target_modules)),
          .activations = plan.total()};
}

std::string_view PolicyName(RecomputePolicy policy) {
  switch (policy) {
    case RecomputePolicy::kNothing:
      return "nothing";
    case RecomputePolicy::kMlp:
      return "mlp";
    case RecomputePolicy::kBlock:
      return "block";
  }
  return "";
}

std::string_view PlacementName(WeightPlacement placement) {
  switch (placement) {
    case WeightPlacement::kResident:
      return "resident";
    case WeightPlacement::kSharded:
      return "sharded";
    case WeightPlacement::kOffloaded:
      return "offloaded";
  }
  return "";
}

std::string DescribePlan(const RecomputePlan& plan, int64_t num_blocks) {
  if (plan.num_more == 0) {
    return std::string(PolicyName(plan.policy));
  }
  return StrCat(PolicyName(plan.Most()),
                " of ",
                plan.num_more,
                " of ",
                num_blocks,
                " blocks, otherwise ",
                PolicyName(plan.policy));
}

Result<int64_t> AllowedMemory(const KernelTable* device) {
  if (device != nullptr) {
    return device->memory->free_bytes();
  }
  const int64_t pages = sysconf(_SC_PHYS_PAGES);
  const int64_t page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) {
    return Internal("the machine does not tell its memory");
  }
  int64_t allowed = ControlGroupLimit(pages * page_bytes);
  rlimit own{};
  if (getrlimit(RLIMIT_DATA, &own) == 0 && own.rlim_cur < static_cast<rlim_t>(allowed)) {
    allowed = static_cast<int64_t>(own.rlim_cur);
  }
  return allowed;
}

Result<MemoryChoice> ChooseMemory(const MemoryJob& job, RecomputePolicy wish, int64_t allowed) {
  for (MemoryChoice choice : ChoicesOf(job, wish)) {
    choice.forecast = ForecastMemory(job, choice.policy, choice.placement, choice.sizes);
    if (choice.forecast.peak() <= allowed) {
      return choice;
    }
  }
  const MemoryForecast least = LeastMemory(job);
  const int64_t rows = LongestThatFits(job, allowed);
  const std::string message = StrCat(
      "the job needs ",
      FormatBytes(least.needed()),
      job.device != nullptr ? " of the GPU's memory" : " of memory",
      " with everything recomputed",
      PlacementsOf(job).back() == WeightPlacement::kResident ? "" : " and two blocks at a time",
      " (weights ",
      FormatBytes(least.weights.copied),
      job.full ? ", all of it trained " : ", LoRA ",
      FormatBytes(least.trained),
      ", activations ",
      FormatBytes(least.activations),
      "), allowed are ",
      FormatBytes(allowed),
      rows > 0 ? StrCat(": documents of at most ", rows, " tokens (seq_len) would fit")
               : std::string(": no seq_len would fit, it takes a smaller model or more memory"));
  return Status(Code::kResourceExhausted, std::string(kReasonNotEnoughMemory), message);
}

}  // namespace mft
