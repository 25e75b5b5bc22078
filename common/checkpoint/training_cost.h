// SPDX-License-Identifier: Apache-2.0
// What a training step costs, for estimates before the first one is done.
#pragma once

#include <cstdint>

#include "common/checkpoint/model_params.h"
#include "common/config/job_spec.h"

namespace mft {

// Sustained by fp32 products on a current server core.
inline constexpr double kCpuFlopsPerCore = 30e9;

// Operations a token: 4 N + 6 P for N frozen and P trained parameters; recomputing the blocks
// repeats their forward pass.
double FlopsPerToken(const JobSpec& spec, const ModelParams& params);

// Of all steps, without evaluation, where every rank does `flops_per_second`.
double TrainingSeconds(const JobSpec& spec, const ModelParams& params, double flops_per_second);

}  // namespace mft
