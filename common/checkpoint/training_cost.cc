// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/training_cost.h"

namespace mft {

double FlopsPerToken(const JobSpec& spec, const ModelParams& params) {
  const auto frozen = static_cast<double>(ActiveMatmulParameters(params));
  const auto adapters =
      static_cast<double>(ActiveLoraParameters(params, spec.lora.rank, spec.mftd.target_modules));
  const auto head = static_cast<double>(params.vocab_size * params.dim);
  if (!spec.lora.enable) {  // the head's logits are computed twice (worker/model/loss.cc)
    return 6 * frozen + 2 * head + (spec.checkpoint ? 2 * (frozen - head) : 0);
  }
  return 4 * frozen + 6 * adapters + (spec.checkpoint ? 2 * (frozen - head) + 2 * adapters : 0);
}

double TrainingSeconds(const JobSpec& spec, const ModelParams& params, double flops_per_second) {
  const double tokens_of_rank =
      static_cast<double>(TotalSteps(spec)) *
      static_cast<double>(spec.batch_size * spec.num_microbatches * spec.seq_len);
  return tokens_of_rank * FlopsPerToken(spec, params) / flops_per_second;
}

}  // namespace mft
