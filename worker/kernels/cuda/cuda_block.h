// SPDX-License-Identifier: Apache-2.0
// Blocks on CUDA (block_table.h): strided loops over the block's threads, sums by shuffles within a
// warp and through shared memory between warps. Every thread adds up the warps' sums in the same
// order, so that all have the same bits.
#pragma once

#include <cuda_runtime.h>

#include "worker/kernels/cuda/block_table.h"
#include "worker/kernels/cuda/norm_blocks.h"
#include "worker/kernels/cuda/quantise_blocks.h"
#include "worker/kernels/cuda/runtime.h"

namespace mft::cuda {

__device__ inline float ShuffleXor(float value, int lanes) {
  return __shfl_xor_sync(0xffffffffU, value, lanes);
}
__device__ inline double ShuffleXor(double value, int lanes) {
  return __shfl_xor_sync(0xffffffffU, value, lanes);
}
__device__ inline SumPair ShuffleXor(const SumPair& value, int lanes) {
  return {ShuffleXor(value.a, lanes), ShuffleXor(value.b, lanes)};
}

template <int kThreads>
class CudaBlock {
  static_assert(kThreads % kWarp == 0);

 public:
  template <typename F>
  __device__ void ForEach(int64_t n, const F& f) {
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      f(i);
    }
  }

  template <typename F>
  __device__ auto Sum(int64_t n, const F& f) {
    decltype(f(0)) sum{};
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      sum = sum + f(i);
    }
    return Reduce(sum, [](const auto& a, const auto& b) { return a + b; });
  }

  // -inf where n is 0.
  template <typename F>
  __device__ float Max(int64_t n, const F& f) {
    float max = -__int_as_float(0x7f800000);
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      const float value = f(i);
      max = value > max ? value : max;
    }
    return Reduce(max, [](float a, float b) { return a > b ? a : b; });
  }

  template <int kGroup, int kOutputs, int kWidth, typename Values, typename Use>
  __device__ void ForGroups(int64_t n, const Values& values, const Use& use) {
    static_assert(kGroup <= kWarp && kWarp % kGroup == 0);
    // The group's lanes: its neighbours in the warp may have no element left.
    const unsigned first = threadIdx.x % kWarp / kGroup * kGroup;
    const unsigned lanes_of_group = (0xffffffffU >> (kWarp - kGroup)) << first;
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      float v[kOutputs][kWidth];
      values(i, v);
      float largest[kOutputs];
      for (int o = 0; o < kOutputs; ++o) {
        largest[o] = LargestMagnitude(v[o]);
        for (int lanes = kGroup / 2; lanes > 0; lanes /= 2) {
          const float other = __shfl_xor_sync(lanes_of_group, largest[o], lanes);
          largest[o] = other > largest[o] ? other : largest[o];
        }
      }
      use(i, v, largest);
    }
  }

  template <typename F>
  __device__ void Once(const F& f) {
    if (threadIdx.x == 0) {
      f();
    }
  }

  template <int kElements>
  struct Lanes {
    float value[kElements];
  };
  template <int kElements, typename F>
  __device__ void ForLanes(int64_t n, Lanes<kElements>& lanes, const F& f) {
#pragma unroll
    for (int k = 0; k < kElements; ++k) {
      const int64_t i = threadIdx.x + k * kThreads;
      if (i < n) {
        f(i, lanes.value[k]);
      }
    }
  }

 private:
  template <typename T, typename Op>
  __device__ T Reduce(T value, const Op& op) {
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      value = op(value, ShuffleXor(value, lanes));
    }
    if constexpr (kThreads == kWarp) {
      return value;
    } else {
      constexpr int kWarps = kThreads / kWarp;
      // Raw bytes: an element with constructors may not be shared.
      __shared__ alignas(16) unsigned char bytes[kWarps * sizeof(T)];
      T* const shared = reinterpret_cast<T*>(bytes);
      __syncthreads();  // the sums of the last reduction have been read
      if (threadIdx.x % kWarp == 0) {
        shared[threadIdx.x / kWarp] = value;
      }
      __syncthreads();
      T total = shared[0];
      for (int warp = 1; warp < kWarps; ++warp) {
        total = op(total, shared[warp]);
      }
      return total;
    }
  }
};

template <int kThreads, typename Body>
__global__ void __launch_bounds__(kThreads) RunBlocks(const Body body) {
  CudaBlock<kThreads> block;
  body(block, static_cast<int64_t>(blockIdx.x));
}

struct CudaDevice {
  template <int kThreads, typename Body>
  static void Launch(int64_t blocks, const Body& body) {
    if (blocks == 0) {
      return;
    }
    RunBlocks<kThreads><<<static_cast<unsigned>(blocks), kThreads, 0, ComputeStream()>>>(body);
    Check(cudaGetLastError(), "a kernel's launch");
  }
  static void* Scratch(size_t bytes) { return KernelScratch(bytes); }
};

}  // namespace mft::cuda
