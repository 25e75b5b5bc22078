// SPDX-License-Identifier: Apache-2.0
#include "worker/train/memory_planner.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "common/base/files.h"
#include "common/base/strings.h"
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

// What the backward pass of attention takes itself. FlashAttention: its own outputs and sums, bf16
// and fp32. cuDNN: gradients of q, k and v of every query head in fp32. Which it will be is chosen
// later.
int64_t AttentionBytes(const ModelParams& params, int64_t rows) {
  const int64_t q = params.n_heads * params.head_dim;
  const int64_t kv = params.n_kv_heads * params.head_dim;
  const int64_t flash = q * (2 + 4) + 2 * 2 * (q + kv);
  const int64_t cudnn = 3 * 4 * q;
  return rows * (std::max(flash, cudnn) + 2 * params.n_heads * 4);
}

// Of an fp8 product: its quantised input, and a transposed weight.
int64_t QuantisedOperandBytes(const ModelParams& params, int64_t rows) {
  const int64_t widest = std::max(params.hidden_dim, params.n_heads * params.head_dim);
  const int64_t scales_of_block = kQuantBlockSize / static_cast<int64_t>(sizeof(float));
  return (rows + params.dim) * widest * (scales_of_block + 1) / scales_of_block;
}

MemoryForecast ForecastOnDevice(const MemoryJob& job, const MemoryPlan& plan, int64_t rows) {
  const ElementType type = job.device->type;
  const int64_t copy = type == ElementType::kBF16 ? ElementBytes(type) : 0;
  const int64_t trained = job.full ? TotalParameters(job.params)
                                   : LoraParameters(job.params, job.rank, job.target_modules);
  const int64_t operands = job.quantise ? QuantisedOperandBytes(job.params, rows) : 0;
  return {.program = kDeviceRuntimeBytes + AttentionBytes(job.params, rows) + operands,
          .weights = {.copied = job.full ? 0 : DeviceWeightBytes(job.params, type, job.quantise)},
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
  if (job.full || job.device != nullptr) {
    return {WeightPlacement::kResident};
  }
  if (job.world_size == 1) {
    return {WeightPlacement::kResident, WeightPlacement::kOffloaded};
  }
  return {WeightPlacement::kResident, WeightPlacement::kSharded, WeightPlacement::kOffloaded};
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
  const MemoryPlan plan = Transformer::PlanMemory(
      job.params,
      LoraInnerColumns(job.params, job.rank, job.target_modules),
      {.policy = policy,
       .max_rows = rows,
       .max_positions = job.longest_document,
       .dropout = job.dropout,
       .sizes = sizes,
       .type = job.device == nullptr ? ElementType::kF32 : job.device->type});
  if (job.device != nullptr) {
    return ForecastOnDevice(job, plan, rows);
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
  for (const WeightPlacement placement : PlacementsOf(job)) {
    for (const RecomputePlan& plan : PlansFrom(wish, job.params.n_layers)) {
      for (const ExecutionSizes& sizes : SizesToTry(job)) {
        const MemoryForecast forecast = ForecastMemory(job, plan, placement, sizes);
        if (forecast.peak() <= allowed) {
          return MemoryChoice{
              .policy = plan, .placement = placement, .forecast = forecast, .sizes = sizes};
        }
      }
    }
  }
  const MemoryForecast least = LeastMemory(job);
  const int64_t rows = LongestThatFits(job, allowed);
  const std::string message = StrCat(
      "the job needs ",
      FormatBytes(least.needed()),
      job.device != nullptr ? " of the GPU's memory with everything recomputed (weights "
      : job.full            ? " of memory with everything recomputed (weights "
                 : " of memory with everything recomputed and two blocks at a time (weights ",
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
