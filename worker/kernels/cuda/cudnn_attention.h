// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "worker/kernels/kernels.h"

namespace mft::cuda {

// Why cuDNN's attention cannot be tried for heads of this width: the GPU, the width, the library or
// the build. "": it can. REQUIRES LoadTorch, which loads cuDNN.
std::string WhyNoCudnnAttention(int64_t head_dim);

// KernelTable::attention and its backward pass in bf16 by cuDNN, variable lengths and grouped
// heads. A plan is built once for each bucket of segments, longest segment and rows (tenths of a
// second) and kept. Matrices have rows without gaps; cu_q equals cu_k. Throws std::runtime_error
// with cuDNN's words, DeviceOutOfMemory where its workspace has no room. The backward pass adds up
// with atomics. Forward keeps lse as [T, H]. REQUIRES that nothing speaks against it (above).
void CudnnAttention(View out, View lse, View q, View k, View v, const AttentionShape& shape);
void CudnnAttentionBackward(const KernelTable::AttentionGrad& grad, const AttentionShape& shape);

// Gives its workspace back to the device; the next call takes it again.
void ReleaseCudnnWorkspace();

}  // namespace mft::cuda
