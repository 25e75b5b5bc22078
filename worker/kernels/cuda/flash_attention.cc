// SPDX-License-Identifier: Apache-2.0
// LibTorch's FlashAttention-2; the only file that calls its operators on CUDA. Letters: T rows, H
// query heads, K key heads, E head width.
#include "worker/kernels/cuda/flash_attention.h"

#include <dlfcn.h>

#include <algorithm>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include "worker/kernels/cuda/runtime.h"
#include "worker/kernels/device_error.h"

namespace mft::cuda {

namespace {
constexpr int64_t kHeadMultiple = 8;
constexpr int64_t kMaxFlashHead = 256;
constexpr int kMinCapability = 80;

bool g_open = false;

c10::Device ThisDevice() {
  return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(DeviceOrdinal())};
}

at::Tensor OnDevice(void* data,
                    at::IntArrayRef sizes,
                    at::IntArrayRef strides,
                    at::ScalarType type) {
  return at::for_blob(data, sizes)
      .strides(strides)
      .options(at::TensorOptions(type).device(ThisDevice()))
      .target_device(ThisDevice())
      .make_tensor();
}

// A view [T, heads E] as [T, heads, E].
at::Tensor Heads(View view, int64_t head_dim) {
  return OnDevice(view.data,
                  {view.rows, view.cols / head_dim, head_dim},
                  {view.stride, head_dim, 1},
                  at::kBFloat16);
}

at::Tensor Offsets(const int32_t* offsets, size_t count) {
  // Read only: LibTorch's interface has no const tensors.
  return OnDevice(const_cast<int32_t*>(offsets), {static_cast<int64_t>(count)}, {1}, at::kInt);
}

at::Tensor Lse(View lse) {
  return OnDevice(lse.data, {lse.cols, lse.rows}, {lse.rows, 1}, at::kFloat);
}

// The loader's words; "": it is loaded.
std::string& WhyNotLoaded() {
  static std::string why;
  return why;
}

// What LibTorch's allocator throws, as the worker knows it.
template <typename Call>
auto TellOutOfMemory(const Call& call) {
  try {
    return call();
  } catch (const c10::OutOfMemoryError& error) {
    throw DeviceOutOfMemory(std::string("no memory of the GPU is left for attention: ") +
                            error.what_without_backtrace());
  }
}

// LibTorch's current stream and device are those of a thread.
c10::cuda::CUDAStreamGuard OnComputeStream() {
  return c10::cuda::CUDAStreamGuard(
      c10::cuda::getStreamFromExternal(ComputeStream(), ThisDevice().index()));
}

int64_t Longest(std::span<const int32_t> offsets) {
  int32_t longest = 0;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    longest = std::max(longest, offsets[i + 1] - offsets[i]);
  }
  return longest;
}
}  // namespace

void LoadTorch() {
  // Its kernels register themselves with the dispatcher when it is loaded.
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    WhyNotLoaded() = dlerror();
  }
}

void OpenTorch() {
  if (!WhyNotLoaded().empty()) {
    throw std::runtime_error("LibTorch's CUDA library does not load: " + WhyNotLoaded());
  }
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  g_open = true;
}

void SetDeterministic(bool deterministic) {
  at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
  // What attention allocates it writes; LibTorch would fill it before.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

void ReleaseTorchCache() {
  if (g_open) {
    c10::cuda::CUDACachingAllocator::emptyCache();
  }
}

std::string WhyNoFlashAttention(int64_t head_dim) {
  if (head_dim % kHeadMultiple != 0 || head_dim > kMaxFlashHead) {
    return "heads are " + std::to_string(head_dim) + " elements wide";
  }
  if (ComputeCapability() < kMinCapability) {
    return "the GPU is older than Ampere";
  }
  return WhyNotLoaded().empty() ? "" : "LibTorch's CUDA library does not load: " + WhyNotLoaded();
}

void FlashAttention(View out, View lse, View q, View k, View v, const AttentionShape& shape) {
  const c10::InferenceMode no_graph;
  const c10::cuda::CUDAStreamGuard on_stream = OnComputeStream();
  const int64_t e = shape.head_dim;
  const auto result = TellOutOfMemory([&] {
    return at::_flash_attention_forward(Heads(q, e),
                                        Heads(k, e),
                                        Heads(v, e),
                                        Offsets(shape.device_cu_q, shape.cu_q.size()),
                                        Offsets(shape.device_cu_k, shape.cu_k.size()),
                                        Longest(shape.cu_q),
                                        Longest(shape.cu_k),
                                        /*dropout_p=*/0.0,
                                        /*is_causal=*/true,
                                        /*return_debug_mask=*/false);
  });
  const at::Tensor& log_sums = std::get<1>(result);
  if (log_sums.dim() != 2 || log_sums.size(0) != lse.cols || log_sums.size(1) != lse.rows) {
    throw std::runtime_error("LibTorch's FlashAttention does not return lse as [heads, rows]");
  }
  Heads(out, e).copy_(std::get<0>(result));
  Lse(lse).copy_(log_sums);
}

void FlashAttentionBackward(const KernelTable::AttentionGrad& g, const AttentionShape& shape) {
  const c10::InferenceMode no_graph;
  const c10::cuda::CUDAStreamGuard on_stream = OnComputeStream();
  const int64_t e = shape.head_dim;
  // Without dropout the state of the random numbers is not read.
  const at::Tensor no_random = at::empty({0}, at::TensorOptions(at::kUInt64).device(ThisDevice()));
  const auto [dq, dk, dv] = TellOutOfMemory([&] {
    return at::_flash_attention_backward(Heads(g.d_out, e),
                                         Heads(g.q, e),
                                         Heads(g.k, e),
                                         Heads(g.v, e),
                                         Heads(g.out, e),
                                         Lse(g.lse),
                                         Offsets(shape.device_cu_q, shape.cu_q.size()),
                                         Offsets(shape.device_cu_k, shape.cu_k.size()),
                                         Longest(shape.cu_q),
                                         Longest(shape.cu_k),
                                         /*dropout_p=*/0.0,
                                         /*is_causal=*/true,
                                         no_random,
                                         no_random);
  });
  Heads(g.dq, e).copy_(dq);
  Heads(g.dk, e).copy_(dk);
  Heads(g.dv, e).copy_(dv);
}

}  // namespace mft::cuda
