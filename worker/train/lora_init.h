// SPDX-License-Identifier: Apache-2.0
// First values of an adapter (finetune-spec 3.3).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace mft {

// A: kaiming-uniform with a = sqrt(5), which is U(-1 / sqrt(in), 1 / sqrt(in)). Element i is a
// function of (seed, name, i) alone, so every rank and every layout of the arenas gets the same
// values. `bf16`: rounded to bf16, as an adapter is born in the compute type. (B starts at 0.)
void InitLoraA(int64_t seed, std::string_view name, int64_t in, bool bf16, std::span<float> a);

}  // namespace mft
