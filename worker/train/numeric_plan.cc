// SPDX-License-Identifier: Apache-2.0
#include "worker/train/numeric_plan.h"

#include <algorithm>

#include "common/journal/record.h"
#include "worker/kernels/cpu_runtime.h"
#include "worker/kernels/kernels.h"

namespace mft {

NumericPlan ChoosePlan(const PlanWish& wish, const Json& previous) {
  NumericPlan plan;
  plan.chunk_rows = wish.chunk_rows;
  plan.loss_chunk_rows = wish.loss_chunk_rows;
  plan.threads = std::max(1, wish.threads);
  plan.kernels = std::string(CpuKernels().name);
  plan.cpu_capability = CpuCapability();
  plan.torch_version = TorchVersion();
  plan.build = std::string(BuildId());
  if (previous.is_object()) {
    const int64_t chunk_rows = IntOr(previous, "chunk_rows", 0);
    if (chunk_rows >= wish.min_chunk_rows && chunk_rows > 0) {
      plan.chunk_rows = chunk_rows;
    }
    const int64_t threads = IntOr(previous, "threads", 0);
    if (!wish.threads_fixed && threads > 0 && threads < plan.threads) {
      plan.threads = static_cast<int>(threads);
    }
  }
  return plan;
}

Json PlanToJson(const NumericPlan& plan) {
  return {{"precision", plan.precision},
          {"chunk_rows", plan.chunk_rows},
          {"loss_chunk_rows", plan.loss_chunk_rows},
          {"threads", plan.threads},
          {"kernels", plan.kernels},
          {"cpu_capability", plan.cpu_capability},
          {"torch", plan.torch_version},
          {"build", plan.build}};
}

}  // namespace mft
