// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/gemm_cpu.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

namespace mft {

namespace {
at::Tensor AsTensor(View v, bool transpose) {
  return transpose ? at::from_blob(v.data, {v.cols, v.rows}, {1, v.stride}, at::kFloat)
                   : at::from_blob(v.data, {v.rows, v.cols}, {v.stride, 1}, at::kFloat);
}
}  // namespace

void GemmCpu(View y, View a, View b, KernelTable::Gemm options) {
  if (y.rows == 0 || y.cols == 0) {
    return;
  }
  at::Tensor out = AsTensor(y, false);
  const at::Tensor left = AsTensor(a, options.transpose_a);
  const at::Tensor right = AsTensor(b, options.transpose_b);
  if (options.beta == 0 && options.alpha == 1) {
    at::mm_out(out, left, right);
  } else {
    at::addmm_out(out, out, left, right, options.beta, options.alpha);
  }
}

}  // namespace mft
