// SPDX-License-Identifier: Apache-2.0
// The attention backends of the open CUDA device as candidates, on problems of a job's shapes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/checkpoint/model_params.h"
#include "worker/kernels/kernels.h"
#include "worker/train/attention_choice.h"

namespace mft {

// Of CUDA's backends the one that every GPU has: a last resort.
inline constexpr std::string_view kExactAttention = "rows";

// Names the one backend that is tried beside the exact one; for a machine whose driver or library
// spoils the choice itself.
inline constexpr const char* kAttentionVariable = "MFT_ATTENTION";

struct AttentionJob {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t rows = 0;           // of a chunk
  int64_t document_rows = 0;  // of the job's documents, the mean
};

// One way to compute attention.
struct NamedKernels {
  std::string name;
  bool deterministic = false;
  const KernelTable* kernels = nullptr;  // of a device; must outlive the candidates
};

// Memory is taken when the first candidate is tried and given back with the last one of them.
std::vector<AttentionCandidate> AttentionCandidates(const AttentionJob& job,
                                                    const std::vector<NamedKernels>& backends);

// Chooses among those of the open CUDA device. What cannot be tried is among the left out.
Result<AttentionChoice> ChooseCudaAttention(const AttentionJob& job,
                                            const AttentionWish& wish,
                                            const Clock& clock);

// "attention: cudnn, 1.203 ms for forward and backward pass of 16384 rows in documents of 1024;
// flash 2.100 ms"
std::string DescribeAttention(const AttentionChoice& choice, const AttentionJob& job);

}  // namespace mft
