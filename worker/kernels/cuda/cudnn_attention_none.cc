// SPDX-License-Identifier: Apache-2.0
// In place of cudnn_attention.cc where the headers of cuDNN or of its frontend were not there.
#include <stdexcept>

#include "worker/kernels/cuda/cudnn_attention.h"

namespace mft::cuda {

std::string WhyNoCudnnAttention(int64_t /*head_dim*/) {
  return "this build was made without cuDNN's headers";
}

void CudnnAttention(View, View, View, View, View, const AttentionShape&) {
  throw std::runtime_error(WhyNoCudnnAttention(0));
}

void CudnnAttentionBackward(const KernelTable::AttentionGrad&, const AttentionShape&) {
  throw std::runtime_error(WhyNoCudnnAttention(0));
}

void ReleaseCudnnWorkspace() {}

}  // namespace mft::cuda
