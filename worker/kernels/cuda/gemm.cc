// SPDX-License-Identifier: Apache-2.0
// cuBLASLt's matrices are columns first: a row-major matrix is its transpose there, and
// y = op(a) op(b) is y' = op(b)' op(a)'. Letters: y [m, n], depth k.
#include "worker/kernels/cuda/gemm.h"

#include <cublasLt.h>

#include <array>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>

#include "worker/kernels/cuda/blas.h"
#include "worker/kernels/cuda/runtime.h"

namespace mft::cuda {

namespace {
constexpr size_t kWorkspaceBytes = size_t{64} << 20;
// Chunks have any number of rows, so that shapes come and go.
constexpr size_t kMaxPlans = 4096;
// Of a vector of loads, and of the tensor memory accelerator. More is not told of, so that a
// product has one algorithm wherever its operands happen to lie: recomputing gives the same bits.
constexpr uint32_t kMaxAlignment = 16;

void CheckBlas(cublasStatus_t status, const std::string& call) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw std::runtime_error("cuBLASLt: " + call + ": " + cublasLtGetStatusString(status));
  }
}

cudaDataType_t DataType(ElementType type) {
  switch (type) {
    case ElementType::kBF16:
      return CUDA_R_16BF;
    case ElementType::kF8:
      return CUDA_R_8F_E4M3;
    case ElementType::kF32:
      return CUDA_R_32F;
  }
  throw std::invalid_argument("an element type that cuBLASLt is not told of");
}

// Of every row.
uint32_t AlignmentOf(View view) {
  const auto bits = reinterpret_cast<uintptr_t>(view.data) |
                    static_cast<uintptr_t>(view.stride * ElementBytes(view.type)) | kMaxAlignment;
  return static_cast<uint32_t>(bits & -bits);
}

// What an algorithm is chosen for.
struct Shape {
  int64_t m, n, k;
  bool transpose_a, transpose_b, adds;
  ElementType in, out;
  int64_t stride_a, stride_b, stride_y;
  uint32_t align_a, align_b, align_y;
  auto Key() const {
    return std::tie(m,
                    n,
                    k,
                    transpose_a,
                    transpose_b,
                    adds,
                    in,
                    out,
                    stride_a,
                    stride_b,
                    stride_y,
                    align_a,
                    align_b,
                    align_y);
  }
  bool operator<(const Shape& other) const { return Key() < other.Key(); }
};

std::string Describe(const Shape& s) {
  return "a product of " + std::to_string(s.m) + " x " + std::to_string(s.k) + " and " +
         std::to_string(s.k) + " x " + std::to_string(s.n) +
         (s.in == ElementType::kBF16 ? " bf16"
          : s.in == ElementType::kF8 ? " fp8"
                                     : " fp32") +
         " elements";
}

class Plan {
 public:
  Plan(cublasLtHandle_t handle, const Shape& s, OperandScales scales)
      : is_scaled_(scales.of_a != nullptr) {
    CheckBlas(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "cublasLtMatmulDescCreate");
    const cublasOperation_t left = s.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t right = s.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    Set(CUBLASLT_MATMUL_DESC_TRANSA, left);
    Set(CUBLASLT_MATMUL_DESC_TRANSB, right);
    if (is_scaled_) {
      Set<int32_t>(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F);
      Set<int32_t>(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F);
      SetScales(scales);
    }
    const auto matrix = [](cublasLtMatrixLayout_t* layout,
                           ElementType type,
                           int64_t cols,
                           int64_t rows,
                           int64_t stride) {
      CheckBlas(cublasLtMatrixLayoutCreate(layout,
                                           DataType(type),
                                           static_cast<uint64_t>(cols),
                                           static_cast<uint64_t>(rows),
                                           stride),
                "cublasLtMatrixLayoutCreate");
    };
    matrix(&b_, s.in, s.transpose_b ? s.k : s.n, s.transpose_b ? s.n : s.k, s.stride_b);
    matrix(&a_, s.in, s.transpose_a ? s.m : s.k, s.transpose_a ? s.k : s.m, s.stride_a);
    matrix(&y_, s.out, s.n, s.m, s.stride_y);
    Choose(handle, s);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    cublasLtMatrixLayoutDestroy(y_);
    cublasLtMatrixLayoutDestroy(a_);
    cublasLtMatrixLayoutDestroy(b_);
    cublasLtMatmulDescDestroy(operation_);
  }

  void Run(cublasLtHandle_t handle,
           View y,
           View a,
           View b,
           float alpha,
           float beta,
           void* workspace) const {
    CheckBlas(cublasLtMatmul(handle,
                             operation_,
                             &alpha,
                             b.data,
                             b_,
                             a.data,
                             a_,
                             &beta,
                             y.data,
                             y_,
                             y.data,
                             y_,
                             &algorithm_,
                             workspace,
                             kWorkspaceBytes,
                             ComputeStream()),
              "cublasLtMatmul");
  }

  void SetScales(OperandScales scales) {
    if (is_scaled_) {
      Set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, scales.of_b);
      Set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, scales.of_a);
    }
  }

 private:
  template <typename T>
  void Set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    CheckBlas(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof value),
              "cublasLtMatmulDescSetAttribute");
  }

  void Choose(cublasLtHandle_t handle, const Shape& s) {
    cublasLtMatmulPreference_t made = nullptr;
    CheckBlas(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
    const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>,
                          decltype(&cublasLtMatmulPreferenceDestroy)>
        wish(made, cublasLtMatmulPreferenceDestroy);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      CheckBlas(cublasLtMatmulPreferenceSetAttribute(wish.get(), attribute, &value, sizeof value),
                "cublasLtMatmulPreferenceSetAttribute");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    // Parts of a split depth are added up in fp32, and in one order.
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, s.align_b);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, s.align_a);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, s.align_y);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, s.align_y);
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    CheckBlas(cublasLtMatmulAlgoGetHeuristic(
                  handle, operation_, b_, a_, y_, y_, wish.get(), 1, &result, &found),
              "cublasLtMatmulAlgoGetHeuristic for " + Describe(s));
    if (found == 0) {
      throw std::runtime_error("cuBLASLt has no algorithm for " + Describe(s));
    }
    algorithm_ = result.algo;
  }

  const bool is_scaled_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr;
  cublasLtMatrixLayout_t b_ = nullptr;
  cublasLtMatrixLayout_t y_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
};

// Of the process's device; lives as long as it.
struct Blas {
  Blas() {
    CheckBlas(cublasLtCreate(&handle), "cublasLtCreate");
    Check(cudaMalloc(&workspace, kWorkspaceBytes), "cudaMalloc of cuBLASLt's workspace");
  }
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  std::map<Shape, Plan> plans;
};

Blas& Opened() {
  static Blas* const blas = new Blas;  // never destroyed: CUDA may be gone by then
  return *blas;
}

Shape ShapeOf(View y, View a, View b, const KernelTable::Gemm& options) {
  return {.m = y.rows,
          .n = y.cols,
          .k = options.transpose_a ? a.rows : a.cols,
          .transpose_a = options.transpose_a,
          .transpose_b = options.transpose_b,
          .adds = options.beta != 0,
          .in = a.type,
          .out = y.type,
          .stride_a = a.stride,
          .stride_b = b.stride,
          .stride_y = y.stride,
          .align_a = AlignmentOf(a),
          .align_b = AlignmentOf(b),
          .align_y = AlignmentOf(y)};
}
}  // namespace

void BlasGemm(View y, View a, View b, const KernelTable::Gemm& options, OperandScales scales) {
  if (y.rows == 0 || y.cols == 0) {
    return;
  }
  const Shape shape = ShapeOf(y, a, b, options);
  if (a.type != b.type) {
    throw std::invalid_argument("operands of different types in " + Describe(shape));
  }
  Blas& blas = Opened();
  auto plan = blas.plans.find(shape);
  if (plan == blas.plans.end()) {
    if (blas.plans.size() == kMaxPlans) {
      blas.plans.clear();
    }
    plan = blas.plans.try_emplace(shape, blas.handle, shape, scales).first;
  }
  plan->second.SetScales(scales);
  plan->second.Run(blas.handle, y, a, b, options.alpha, options.beta, blas.workspace);
}

void Gemm(View y, View a, View b, KernelTable::Gemm options) {
  BlasGemm(y, a, b, options, {});
}

}  // namespace mft::cuda
