// SPDX-License-Identifier: Apache-2.0
// The documents of a benchmark's step.
#pragma once

#include <cstdint>
#include <vector>

#include "common/base/status.h"
#include "common/dataset/batcher.h"
#include "worker/train/bench.h"

namespace mft {

// Tokens of each document. INVALID_ARGUMENT and NOT_FOUND name the argument or the file.
Result<std::vector<int64_t>> BenchLengths(const BenchArgs& args);

// All documents of a step, random tokens, every one with loss.
MicroBatch RandomBatch(const std::vector<int64_t>& lengths, int64_t vocab_size);

// The length that attention feels: sum of squares over sum.
double LengthFelt(const std::vector<int64_t>& lengths);

}  // namespace mft
