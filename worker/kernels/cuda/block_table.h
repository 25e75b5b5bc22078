// SPDX-License-Identifier: Apache-2.0
// The part of a device's table that is made of blocks (*_blocks.h), written once for whatever runs
// blocks: CUDA (cuda_block.h), and in tests the CPU. Device has
//   template <int kThreads, typename Body> static void Launch(int64_t blocks, const Body& body);
//     body(block, i) for each i < blocks, after everything launched before
//   static void* Scratch(size_t bytes);  // the device's memory until the next call
// Block, shared by kThreads threads, which all call the same functions in the same order:
//   ForEach(n, f)   f(i) for each i < n, in no order; what one element writes no other may read
//   Sum(n, f), Max(n, f)   over f(i), the same for every thread; a barrier
//   ForGroups<kGroup, kOutputs, kWidth>(n, values, use)   for each i < n values(i, v) and then
//                   use(i, v, largest), v [kOutputs][kWidth], largest [kOutputs] the largest
//                   magnitude in the group of kGroup neighbours of i, of which n is a multiple
//   Once(f)         one thread
//   Lanes<k>, ForLanes(n, lanes, f)   values of a warp's threads: element i stays with its own
#pragma once

#include <algorithm>
#include <stdexcept>
#include <type_traits>

#include "worker/kernels/cuda/attention_blocks.h"
#include "worker/kernels/cuda/optimizer_blocks.h"
#include "worker/kernels/cuda/row_blocks.h"
#include "worker/kernels/cuda/softmax_blocks.h"
#include "worker/kernels/kernels.h"

namespace mft::cuda {

constexpr int kRowThreads = 256;
constexpr int kLogitThreads = 512;
constexpr int kWarp = 32;

inline int64_t CeilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// f(number of elements of a load), the most that all views allow.
template <typename T, typename F>
void WithWidth(bool vectorised, const F& f) {
  if (vectorised) {
    f(std::integral_constant<int, TypeOf<T>::kVector>());
  } else {
    f(std::integral_constant<int, 1>());
  }
}

// f(element of the type)
template <typename F>
void WithType(ElementType type, const F& f) {
  if (type == ElementType::kBF16) {
    f(Bf16());
  } else {
    f(float());
  }
}

template <typename Device>
struct AnyRows {
  static void Copy(View y, View x) { Gather(y, x, nullptr); }

  static void Gather(View y, View table, const int32_t* index) {
    if (y.type != table.type) {
      throw std::invalid_argument("rows are copied within one element type");
    }
    WithType(y.type, [&](auto element) {
      using T = decltype(element);
      WithWidth<T>(IsVectorised<T>(y) && IsVectorised<T>(table), [&](auto width) {
        Device::template Launch<kRowThreads>(
            y.rows, GatherRow<T, width()>{RowsOf<T>(y), RowsOf<T>(table), index});
      });
    });
  }

  static void Add(View y, View x) { ScatterAdd(y, x, nullptr); }

  static void ScatterAdd(View y, View x, const int32_t* index) {
    if (y.type != x.type) {
      throw std::invalid_argument("rows are added within one element type");
    }
    WithType(y.type, [&](auto element) {
      using T = decltype(element);
      WithWidth<T>(IsVectorised<T>(y) && IsVectorised<T>(x), [&](auto width) {
        Device::template Launch<kRowThreads>(
            x.rows, AddToRow<T, width()>{RowsOf<T>(y), RowsOf<T>(x), index});
      });
    });
  }

  static void Zero(View y) {
    WithType(y.type, [&](auto element) {
      using T = decltype(element);
      Device::template Launch<kRowThreads>(y.rows * PartsOf(y.cols), ZeroPart<T>{RowsOf<T>(y)});
    });
  }

  static void Scale(View y, const float* factor) {
    WithType(y.type, [&](auto element) {
      using T = decltype(element);
      WithWidth<T>(IsVectorised<T>(y), [&](auto width) {
        Device::template Launch<kRowThreads>(y.rows, ScaleRow<T, width()>{RowsOf<T>(y), factor});
      });
    });
  }

  static void Convert(View y, View x) {
    WithType(y.type, [&](auto to) {
      WithType(x.type, [&](auto from) {
        using To = decltype(to);
        using From = decltype(from);
        Device::template Launch<kRowThreads>(y.rows * PartsOf(y.cols),
                                             ConvertPart<To, From>{RowsOf<To>(y), RowsOf<From>(x)});
      });
    });
  }

  static void Random(View y, uint64_t seed, float scale) {
    WithType(y.type, [&](auto element) {
      using T = decltype(element);
      Device::template Launch<kRowThreads>(y.rows, RandomRow<T>{RowsOf<T>(y), seed, scale});
    });
  }
};

template <typename Device>
struct FlatArenas {
  static void SumOfSquares(const float* values, int64_t size, double* sum) {
    const int64_t part_size = std::max(kArenaPart, CeilDiv(size, kMaxSumParts));
    const int64_t parts = CeilDiv(size, part_size);
    auto* const sums = static_cast<double*>(Device::Scratch(kMaxSumParts * sizeof(double)));
    Device::template Launch<kRowThreads>(parts, SquaresOfPart{values, size, part_size, sums});
    Device::template Launch<kRowThreads>(1, SumOfParts{sums, parts, sum});
  }

  static void AdamW(const AdamWArenas& arenas, const AdamWScalars& scalars) {
    Device::template Launch<kRowThreads>(CeilDiv(arenas.size, kArenaPart),
                                         AdamWPart<Bf16>{arenas, scalars});
  }

  static void CrossEntropy(const SoftmaxState* state,
                           int64_t rows,
                           const float* row_weight,
                           float* exp_factor,
                           float* target_factor,
                           double* sum) {
    Device::template Launch<kLogitThreads>(
        1, CrossEntropyRows{state, rows, row_weight, exp_factor, target_factor, sum});
  }

  static void Fold(double* total, double* sum) {
    Device::template Launch<kWarp>(1, FoldSum{total, sum});
  }
};

}  // namespace mft::cuda
