// SPDX-License-Identifier: Apache-2.0
// What changes numbers without changing the job: chosen once, stored in each checkpoint, used again
// on resume (numerics.md, "What is semantics and what is execution").
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/base/json.h"
#include "common/base/status.h"
#include "worker/train/train_device.h"

namespace mft {

struct NumericPlan {
  std::string precision = "fp32";  // of the operands of products: fp32 | bf16
  int64_t chunk_rows = 0;          // T
  int64_t loss_chunk_rows = 0;     // rows of a chunk of logits
  int64_t ranks = 1;               // whose gradients are summed
  int threads = 1;                 // of each
  std::string attention;           // of CUDA in bf16: "rows", "flash", "cudnn"; otherwise ""
  std::string kernels;             // "cpu-avx512"
  std::string cpu_capability;      // LibTorch's, for its matrix products
  std::string torch_version;
  std::string build;
};

struct PlanWish {
  std::string precision = "auto";
  bool bf16_weights = false;
  int64_t chunk_rows = 0;
  int64_t min_chunk_rows = 0;  // what the job's longest segment needs
  int64_t loss_chunk_rows = 0;
  int64_t ranks = 1;
  int threads = 1;             // at most
  bool threads_fixed = false;  // the user asked for this number
  TrainDevice device;
  // Asked where there is a choice, on CUDA in bf16: the name of a backend. `previous`: that of the
  // previous plan, or "".
  std::function<std::string(const std::string& previous)> choose_attention;
};

// As wished, except that what `previous` (a checkpoint's plan, or null) had is kept where possible.
NumericPlan ChoosePlan(const PlanWish& wish, const Json& previous);
Json PlanToJson(const NumericPlan& plan);

}  // namespace mft
