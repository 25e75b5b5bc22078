// SPDX-License-Identifier: Apache-2.0
// Letters: y [m, n] of x [m, k] and a weight whose rows are as long as k. To cuBLASLt, which has
// columns first, the weight is the left operand, transposed, and x the right one (gemm.cc).
#include "worker/kernels/cuda/gemm_quantised.h"

#include <cublasLt.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "worker/kernels/cuda/blas.h"
#include "worker/kernels/cuda/quantise.h"
#include "worker/kernels/cuda/runtime.h"
#include "worker/kernels/device_error.h"

namespace mft::cuda {

namespace {
constexpr int64_t kAlignment = 256;
constexpr int64_t kRowMultiple = 16;  // of every side of an fp8 product

int64_t Aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Memory that grows; what is in it is lost when it does. In stream order: cudaFree waits.
class Scratch {
 public:
  std::byte* Of(int64_t bytes) {
    if (bytes > size_) {
      Check(cudaFree(data_), "cudaFree of the quantised operands");
      data_ = nullptr;
      size_ = 0;
      const std::string call =
          "cudaMalloc of " + std::to_string(bytes) + " bytes for quantised operands";
      const cudaError_t error =
          cudaMalloc(reinterpret_cast<void**>(&data_), static_cast<size_t>(bytes));
      if (error == cudaErrorMemoryAllocation) {
        throw DeviceOutOfMemory("no memory of the GPU is left: " + call);
      }
      Check(error, call);
      size_ = bytes;
    }
    return data_;
  }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

Scratch& ScratchOf(bool weight) {
  static auto* const of_weights = new Scratch;  // never destroyed: CUDA may be gone by then
  static auto* const of_inputs = new Scratch;
  return weight ? *of_weights : *of_inputs;
}

int64_t InputBytes(int64_t rows, int64_t depth) {
  return Aligned(rows * depth) + Aligned(rows * (depth / kQuantBlockSize) * 4);
}

int64_t WeightBytes(int64_t rows, int64_t cols) {
  return Aligned(rows * cols) + Aligned(rows / kQuantBlockSize * ScaleStride(cols) * 4);
}

QuantisedMat InScratch(Scratch& scratch, int64_t rows, int64_t cols) {
  std::byte* const at = scratch.Of(WeightBytes(rows, cols));
  return {TypedView(at, rows, cols, ElementType::kF8),
          View{at + Aligned(rows * cols),
               rows / kQuantBlockSize,
               cols / kQuantBlockSize,
               ScaleStride(cols),
               ElementType::kF32}};
}

void CheckShapes(View x, const QuantisedMat& w) {
  if (x.rows % kRowMultiple != 0 || w.data.rows % kQuantBlockSize != 0 ||
      w.data.cols % kQuantBlockSize != 0) {
    throw std::invalid_argument("fp8 product of " + std::to_string(x.rows) +
                                " rows and a weight of " + std::to_string(w.data.rows) + " x " +
                                std::to_string(w.data.cols));
  }
}
}  // namespace

bool HasQuantisedGemm() {
  constexpr int kHopper = 9;
  int major = 0;
  Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, DeviceOrdinal()),
        "cudaDeviceGetAttribute");
  // Blackwell's block scales are of another kind (MXFP8).
  return major == kHopper;
}

int64_t QuantisedGemmBytes(int64_t rows, int64_t widest) {
  return InputBytes(rows, widest) + WeightBytes(widest, widest);
}

void GemmQuantised(View y, View x, const QuantisedMat& w, bool transpose_w, float beta) {
  CheckShapes(x, w);
  QuantisedMat left = w;
  if (!transpose_w) {
    left = InScratch(ScratchOf(true), w.data.cols, w.data.rows);
    TransposeQuantisedMat(left, w);
  }
  std::byte* const at = ScratchOf(false).Of(InputBytes(x.rows, x.cols));
  const View quantised = TypedView(at, x.rows, x.cols, ElementType::kF8);
  const View scales = MatrixView(
      reinterpret_cast<float*>(at + Aligned(x.rows * x.cols)), x.cols / kQuantBlockSize, x.rows);
  QuantiseRows(quantised, scales, x);
  BlasGemm(y,
           quantised,
           left.data,
           {.transpose_b = true, .beta = beta},
           {.of_a = scales.f32(), .of_b = left.scales.f32()});
}

}  // namespace mft::cuda
