// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "worker/kernels/kernels.h"

namespace mft::cuda {

// Loads LibTorch's CUDA library, where it is: before LibTorch is asked whether it has one, since it
// remembers the answer.
void LoadTorch();
// Lets its operators run on the compute stream. Throws std::runtime_error that names what the
// loader misses. REQUIRES LoadTorch.
void OpenTorch();

// Of attention's backward pass. Before OpenTorch or after.
void SetDeterministic(bool deterministic);

// Gives what its allocator keeps for later back to the device.
void ReleaseTorchCache();

// Why FlashAttention cannot be tried for heads of this width: the GPU, the width or the library.
// "": it can. REQUIRES LoadTorch.
std::string WhyNoFlashAttention(int64_t head_dim);

// KernelTable::attention and its backward pass in bf16 by LibTorch's FlashAttention-2. Its outputs
// are its own and are copied: the one place that allocates within a step, from LibTorch's cache.
// Forward keeps lse as [H, T]. The backward pass adds up with atomics unless SetDeterministic.
// REQUIRES OpenTorch.
void FlashAttention(View out, View lse, View q, View k, View v, const AttentionShape& shape);
void FlashAttentionBackward(const KernelTable::AttentionGrad& grad, const AttentionShape& shape);

}  // namespace mft::cuda
