// SPDX-License-Identifier: Apache-2.0
#include "tests/support/emulated_device.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "tests/support/emulated_block.h"
#include "worker/kernels/cuda/make_table.h"
#include "worker/kernels/f8_element.h"

namespace mft::testing {

namespace {
constexpr size_t kSize = size_t{2} << 30;
constexpr size_t kPage = 4096;

// Address space whose pages are there for whoever holds an Access, and for nobody else.
class GuardedMemory {
 public:
  GuardedMemory()
      : data_(static_cast<std::byte*>(
            mmap(nullptr, kSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    if (data_ == MAP_FAILED) {
      throw std::bad_alloc();
    }
  }
  void* Allocate(size_t bytes) {
    const size_t size = (bytes + kPage - 1) / kPage * kPage;
    if (size > kSize - used_) {
      return nullptr;
    }
    void* const at = data_ + used_;
    used_ += size;
    ++live_;
    return at;
  }
  void Release() {
    if (--live_ == 0) {
      madvise(data_, used_, MADV_DONTNEED);
      used_ = 0;
    }
  }
  void Protect(int protection) {
    if (used_ > 0 && mprotect(data_, used_, protection) != 0) {
      throw std::runtime_error("mprotect");
    }
  }
  int64_t free_bytes() const { return static_cast<int64_t>(kSize - used_); }

 private:
  std::byte* const data_;
  size_t used_ = 0;
  int64_t live_ = 0;
};

GuardedMemory& Guarded() {
  static GuardedMemory memory;
  return memory;
}

class Access {
 public:
  Access() { Guarded().Protect(PROT_READ | PROT_WRITE); }
  ~Access() { Guarded().Protect(PROT_NONE); }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
};

void Copy(void* to, const void* from, size_t bytes) {
  const Access access;
  std::memcpy(to, from, bytes);
}

// A copy beside the kernels may be done at once or when it is waited for: nothing may read or need
// what is in the target in between.
struct BegunCopy {
  void* to = nullptr;
  const void* from = nullptr;
  size_t bytes = 0;
};
std::vector<BegunCopy> g_begun;
constexpr int kNoValue = 0xFF;  // not a number of any type

void BeginCopy(void* to, const void* from, size_t bytes) {
  const Access access;
  std::memset(to, kNoValue, bytes);
  g_begun.push_back({to, from, bytes});
}

void JoinCopies() {
  for (const BegunCopy& copy : g_begun) {
    Copy(copy.to, copy.from, copy.bytes);
  }
  g_begun.clear();
}

constexpr DeviceMemory kMemory = {
    .allocate = [](size_t bytes) { return Guarded().Allocate(bytes); },
    .release = [](void* /*data*/) { Guarded().Release(); },
    .upload = Copy,
    .download = Copy,
    .synchronize = [] {},
    .free_bytes = [] { return Guarded().free_bytes(); },
    .copy = Copy,
    .allocate_pinned = [](size_t bytes) { return std::malloc(bytes); },
    .release_pinned = std::free,
    .begin_copy = BeginCopy,
    .join_copies = JoinCopies};

struct EmulatedDevice {
  template <int kThreads, typename Body>
  static void Launch(int64_t blocks, const Body& body) {
    const Access access;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < blocks; ++i) {
      EmulatedBlock<kThreads> block;
      body(block, i);
    }
  }
  static void* Scratch(size_t bytes) {
    static std::vector<std::byte> scratch;
    scratch.resize(bytes);
    return scratch.data();
  }
};

float ValueAt(View view, int64_t row, int64_t col) {
  return view.type == ElementType::kBF16
             ? static_cast<float>(Bf16::FromBits(view.bf16_row(row)[col]))
             : view.row(row)[col];
}

std::vector<float> Widened(View view) {
  std::vector<float> values;
  values.reserve(static_cast<size_t>(view.rows * view.cols));
  for (int64_t i = 0; i < view.rows; ++i) {
    for (int64_t j = 0; j < view.cols; ++j) {
      values.push_back(ValueAt(view, i, j));
    }
  }
  return values;
}

// y = alpha product + beta y, of y's type.
void Add(View y, const std::vector<float>& product, float alpha, float beta) {
  for (int64_t i = 0; i < y.rows; ++i) {
    for (int64_t j = 0; j < y.cols; ++j) {
      const float before = beta == 0 ? 0 : beta * ValueAt(y, i, j);
      const float value = alpha * product[static_cast<size_t>(i * y.cols + j)] + before;
      if (y.type == ElementType::kBF16) {
        static_cast<uint16_t*>(y.data)[i * y.stride + j] = Bf16(value).bits;
      } else {
        y.row(i)[j] = value;
      }
    }
  }
}

void Gemm(View y, View a, View b, KernelTable::Gemm options) {
  if (a.type != b.type) {
    throw std::invalid_argument("operands of different types");
  }
  const Access access;
  std::vector<float> left = Widened(a);
  std::vector<float> right = Widened(b);
  std::vector<float> product(static_cast<size_t>(y.rows * y.cols));
  CpuKernels().gemm(MatrixView(product.data(), y.rows, y.cols),
                    MatrixView(left.data(), a.rows, a.cols),
                    MatrixView(right.data(), b.rows, b.cols),
                    {.transpose_a = options.transpose_a, .transpose_b = options.transpose_b});
  Add(y, product, options.alpha, options.beta);
}

AttentionShape OffsetsOnHost(AttentionShape shape) {
  shape.device_cu_q = shape.cu_q.data();
  shape.device_cu_k = shape.cu_k.data();
  return shape;
}

// The product of what the operands are, in fp32.
void GemmQuantised(
    View y, const QuantisedRows& x, const QuantisedMat& w, bool transpose_w, float beta) {
  constexpr int64_t kRowMultiple = 16;
  if (!x.is_operand() || x.data.rows % kRowMultiple != 0) {
    throw std::invalid_argument("rows that are no operand of an fp8 product");
  }
  const Access access;
  const auto value = [](View view, int64_t row, int64_t col) {
    F8E4M3 element;
    element.bits = static_cast<uint8_t*>(view.data)[row * view.stride + col];
    return static_cast<float>(element);
  };
  std::vector<float> left(static_cast<size_t>(x.data.rows * x.data.cols));
  for (int64_t i = 0; i < x.data.rows; ++i) {
    for (int64_t j = 0; j < x.data.cols; ++j) {
      left[static_cast<size_t>(i * x.data.cols + j)] =
          value(x.data, i, j) * x.scales.row(j / kQuantBlockSize)[i];
    }
  }
  std::vector<float> right(static_cast<size_t>(w.data.rows * w.data.cols));
  for (int64_t i = 0; i < w.data.rows; ++i) {
    for (int64_t j = 0; j < w.data.cols; ++j) {
      right[static_cast<size_t>(i * w.data.cols + j)] =
          value(w.data, i, j) * w.scales.row(i / kQuantBlockSize)[j / kQuantBlockSize];
    }
  }
  std::vector<float> product(static_cast<size_t>(y.rows * y.cols));
  CpuKernels().gemm(MatrixView(product.data(), y.rows, y.cols),
                    MatrixView(left.data(), x.data.rows, x.data.cols),
                    MatrixView(right.data(), w.data.rows, w.data.cols),
                    {.transpose_b = transpose_w});
  Add(y, product, 1, beta);
}

template <typename T>
KernelTable Table(const char* name) {
  KernelTable table = cuda::MakeTable<EmulatedDevice, T>(kMemory);
  table.name = name;
  table.gemm = Gemm;
  table.gemm_quantised = table.type == ElementType::kBF16 ? GemmQuantised : nullptr;
  return table;
}
}  // namespace

const KernelTable& EmulatedKernels(bool bf16) {
  static const KernelTable fp32 = Table<float>("emulated-fp32");
  static const KernelTable narrow = Table<Bf16>("emulated-bf16");
  return bf16 ? narrow : fp32;
}

const KernelTable& EmulatedKernelsOnHostMemory() {
  static const KernelTable table = [] {
    KernelTable host = EmulatedKernels(false);
    host.memory = nullptr;
    host.attention = [](View out, View lse, View q, View k, View v, const AttentionShape& shape) {
      EmulatedKernels(false).attention(out, lse, q, k, v, OffsetsOnHost(shape));
    };
    host.attention_backward = [](const KernelTable::AttentionGrad& grad,
                                 const AttentionShape& shape) {
      EmulatedKernels(false).attention_backward(grad, OffsetsOnHost(shape));
    };
    return host;
  }();
  return table;
}

}  // namespace mft::testing
