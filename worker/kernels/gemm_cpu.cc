// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/gemm_cpu.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include "worker/kernels/elementwise.h"

namespace mft {

namespace {
at::Tensor AsTensor(View v, bool transpose) {
  return transpose ? at::from_blob(v.data, {v.cols, v.rows}, {1, v.stride}, at::kFloat)
                   : at::from_blob(v.data, {v.rows, v.cols}, {v.stride, 1}, at::kFloat);
}

// At most so many elements of b are widened at a time: they stay in a near cache.
constexpr int64_t kWideElements = int64_t{1} << 18;

// LibTorch's products take both operands in one type: b is widened some rows at a time, which are
// columns of y, or a part of the depth.
void GemmOfBf16(View y, View a, View b, KernelTable::Gemm options) {
  static thread_local std::vector<float> wide;  // kept from call to call
  const int64_t rows = std::clamp(kWideElements / b.cols, int64_t{1}, b.rows);
  wide.resize(static_cast<size_t>(rows * b.cols));
  for (int64_t begin = 0; begin < b.rows; begin += rows) {
    const int64_t count = std::min(rows, b.rows - begin);
    const View part = MatrixView(wide.data(), count, b.cols);
#pragma omp parallel for schedule(static) if (count * b.cols > kWideElements / 8)
    for (int64_t i = 0; i < count; ++i) {
      elementwise::WidenRow(part.row(i), b.bf16_row(begin + i), b.cols);
    }
    if (options.transpose_b) {
      GemmCpu(y.Cols(begin, count), a, part, options);
      continue;
    }
    GemmCpu(y, options.transpose_a ? a.Rows(begin, count) : a.Cols(begin, count), part, options);
    options.beta = 1;
  }
}
}  // namespace

void GemmCpu(View y, View a, View b, KernelTable::Gemm options) {
  if (y.rows == 0 || y.cols == 0) {
    return;
  }
  if (b.type == ElementType::kBF16 && b.rows > 0 && b.cols > 0) {  // without depth nothing is read
    GemmOfBf16(y, a, b, options);
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
