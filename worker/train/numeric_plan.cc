// SPDX-License-Identifier: Apache-2.0
#include "worker/train/numeric_plan.h"

#include <algorithm>

#include "common/base/strings.h"
#include "common/journal/record.h"
#include "worker/kernels/cpu_runtime.h"

namespace mft {

NumericPlan ChoosePlan(const PlanWish& wish, const Json& previous) {
  NumericPlan plan;
  plan.chunk_rows = wish.chunk_rows;
  plan.loss_chunk_rows = wish.loss_chunk_rows;
  plan.ranks = wish.ranks;
  plan.threads = std::max(1, wish.threads);
  plan.cpu_capability = CpuCapability();
  plan.torch_version = TorchVersion();
  plan.build = std::string(BuildId());
  plan.precision = ResolvePrecision(wish.precision, wish.bf16_weights, wish.device);
  if (previous.is_object()) {
    const std::string precision = StringOr(previous, "precision", "");
    if (wish.precision == "auto" && (precision == "fp32" || precision == "bf16") &&
        CheckPrecision(precision, wish.device).ok()) {
      plan.precision = precision;
    }
    const int64_t chunk_rows = IntOr(previous, "chunk_rows", 0);
    if (chunk_rows >= wish.min_chunk_rows && chunk_rows > 0) {
      plan.chunk_rows = chunk_rows;
    }
    const int64_t threads = IntOr(previous, "threads", 0);
    if (!wish.threads_fixed && threads > 0 && threads < plan.threads) {
      plan.threads = static_cast<int>(threads);
    }
  }
  if (wish.device.is_cuda() && plan.precision != "fp32") {
    plan.attention =
        wish.choose_attention(previous.is_object() ? StringOr(previous, "attention", "") : "");
  }
  plan.kernels = std::string(KernelsFor(plan.precision, wish.device, plan.attention).name);
  return plan;
}

Json PlanToJson(const NumericPlan& plan) {
  Json json = {{"precision", plan.precision},
               {"chunk_rows", plan.chunk_rows},
               {"loss_chunk_rows", plan.loss_chunk_rows},
               {"ranks", plan.ranks},
               {"threads", plan.threads},
               {"kernels", plan.kernels},
               {"cpu_capability", plan.cpu_capability},
               {"torch", plan.torch_version},
               {"build", plan.build}};
  if (!plan.attention.empty()) {
    json["attention"] = plan.attention;
  }
  return json;
}

}  // namespace mft
