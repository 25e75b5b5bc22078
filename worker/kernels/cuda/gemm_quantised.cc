// SPDX-License-Identifier: Apache-2.0
// Letters: y [m, n] of x [m, k] and a weight whose rows are as long as k. To cuBLASLt, which has
// columns first, the weight is the left operand A, transposed, and x the right one B (gemm.cc): its
// M is our n, its N our m.
//
// What NVIDIA's cuBLAS manual says of such products, and where it is kept:
//  - "128-element 1D and 128x128 2D Block Scaling": compute capability 9.0 alone
//    (HasQuantisedGemm); A and B with 1D blocks each or one of them with 2D, never both; D is bf16,
//    fp16 or fp32, and nothing else has a scale (Plan).
//  - "Scaling factors layouts": they begin at 16 bytes, M and N are multiples of 4. 2D blocks of A:
//    [M / 128] rows of K / 128 scales, from row to row a multiple of 4 (ScaleStride). 1D blocks of
//    B: [K / 128] rows of N scales, without a stride (QuantisedRows::is_operand).
//  - "cublasLtMatmul()", fp8: A transposed and B not; pointers and sides for 16 bytes; computed in
//    CUBLAS_COMPUTE_32F, scaled in CUDA_R_32F; C and D in bf16 (CheckShapes, Plan).
// cuBLAS has them since 12.9 and CUDA 13 asks for a driver of at least 580 (release notes). Fused
// epilogues are few with them, and none is used.
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
      Check(cudaFree(data_), "cudaFree of a transposed weight");
      data_ = nullptr;
      size_ = 0;
      const std::string call =
          "cudaMalloc of " + std::to_string(bytes) + " bytes for a transposed weight";
      const cudaError_t error =
          cudaMalloc(reinterpret_cast<void**>(&data_), static_cast<size_t>(bytes));
      if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();  // it is told here, and is no error of a later call
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

Scratch& TransposedWeight() {
  static auto* const scratch = new Scratch;  // never destroyed: CUDA may be gone by then
  return *scratch;
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

void CheckShapes(const QuantisedRows& x, const QuantisedMat& w) {
  if (x.data.rows % kRowMultiple != 0 || !x.is_operand() || w.data.rows % kQuantBlockSize != 0 ||
      w.data.cols % kQuantBlockSize != 0) {
    throw std::invalid_argument("fp8 product of " + std::to_string(x.data.rows) +
                                " rows, scales in rows of " + std::to_string(x.scales.stride) +
                                ", and a weight of " + std::to_string(w.data.rows) + " x " +
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

void GemmQuantised(
    View y, const QuantisedRows& x, const QuantisedMat& w, bool transpose_w, float beta) {
  CheckShapes(x, w);
  QuantisedMat left = w;
  if (!transpose_w) {
    left = InScratch(TransposedWeight(), w.data.cols, w.data.rows);
    TransposeQuantisedMat(left, w);
  }
  BlasGemm(y,
           x.data,
           left.data,
           {.transpose_b = true, .beta = beta},
           {.of_a = x.scales.f32(), .of_b = left.scales.f32()});
}

}  // namespace mft::cuda
