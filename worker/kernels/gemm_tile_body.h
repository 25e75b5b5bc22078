// SPDX-License-Identifier: Apache-2.0
// What the files of AVX-512 tiles share. They are compiled with different target flags, so all is
// static: with external linkage the linker could pick the body for another instruction set. No
// templates of the standard library for the same reason.
#pragma once

#include <immintrin.h>

#include "worker/kernels/gemm_tile.h"

namespace mft {

constexpr int64_t kVector = 16;  // lanes of a register

// The first `count` lanes, none for count <= 0.
static __mmask16 FirstLanes(int64_t count) {
  return count >= kVector ? __mmask16{0xFFFF}
         : count <= 0     ? __mmask16{0}
                          : static_cast<__mmask16>((1U << count) - 1);
}

template <int kRows, int kVectors>
static void Store(const GemmTile& t, const __m512 (&sum)[kRows][kVectors]) {
  const __m512 alpha = _mm512_set1_ps(t.alpha);
  const __m512 beta = _mm512_set1_ps(t.beta);
#pragma GCC unroll 14
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* c = t.c + i * t.c_stride + v * kVector;
      const __mmask16 lanes = FirstLanes(t.cols - v * kVector);
      __m512 value = _mm512_mul_ps(alpha, sum[i][v]);
      if (t.beta != 0) {
        value = _mm512_fmadd_ps(beta, _mm512_maskz_loadu_ps(lanes, c), value);
      }
      _mm512_mask_storeu_ps(c, lanes, value);
    }
  }
}

// All sums stay in registers: every loop but the one over depth is unrolled.
template <typename Lane, int kRows, int kVectors, bool kByDepth>
static void Multiply(const GemmTile& t) {
  constexpr int64_t kRowStep = kByDepth ? 1 : kPanelRowStride;
  constexpr int64_t kDepthStep = kByDepth ? kPanelDepthStride : 1;
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 14
  for (int i = 0; i < kRows; ++i) {
    _mm_prefetch(reinterpret_cast<const char*>(t.c + i * t.c_stride), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(t.c + i * t.c_stride + t.cols - 1), _MM_HINT_T0);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      sum[i][v] = _mm512_setzero_ps();
    }
  }
  const float* a = t.a;
  const float* b = t.b;
  for (int64_t k = 0; k < t.depth; ++k) {
    __m512 right[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      right[v] = _mm512_load_ps(b + v * kVector);
    }
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
      const __m512 left = _mm512_set1_ps(a[i * kRowStep]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sum[i][v] = Lane::MultiplyAdd(left, right[v], sum[i][v]);
      }
    }
    a += kDepthStep;
    b += kTileCols;
  }
  Store<kRows, kVectors>(t, sum);
}

template <typename Lane, int kVectors, bool kByDepth>
static void MultiplyRows(const GemmTile& t) {
  static constexpr void (*kByRows[kTileRows])(const GemmTile&) = {
      Multiply<Lane, 1, kVectors, kByDepth>,
      Multiply<Lane, 2, kVectors, kByDepth>,
      Multiply<Lane, 3, kVectors, kByDepth>,
      Multiply<Lane, 4, kVectors, kByDepth>,
      Multiply<Lane, 5, kVectors, kByDepth>,
      Multiply<Lane, 6, kVectors, kByDepth>,
      Multiply<Lane, 7, kVectors, kByDepth>,
      Multiply<Lane, 8, kVectors, kByDepth>,
      Multiply<Lane, 9, kVectors, kByDepth>,
      Multiply<Lane, 10, kVectors, kByDepth>,
      Multiply<Lane, 11, kVectors, kByDepth>,
      Multiply<Lane, 12, kVectors, kByDepth>,
      Multiply<Lane, 13, kVectors, kByDepth>,
      Multiply<Lane, 14, kVectors, kByDepth>};
  kByRows[t.rows - 1](t);
}

template <typename Lane>
static void MultiplyTile(const GemmTile& t) {
  if (t.cols <= kVector) {
    t.by_depth ? MultiplyRows<Lane, 1, true>(t) : MultiplyRows<Lane, 1, false>(t);
  } else {
    t.by_depth ? MultiplyRows<Lane, 2, true>(t) : MultiplyRows<Lane, 2, false>(t);
  }
}

// Rows of 16 to columns: neighbours first, then pairs, then quarters of a register.
static void Transpose16(__m512 (&r)[16]) {
  __m512 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 16; i += 8) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], _MM_SHUFFLE(2, 0, 2, 0));
      t[i + j + 4] = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], _MM_SHUFFLE(3, 1, 3, 1));
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    r[j] = _mm512_shuffle_f32x4(t[j], t[j + 8], _MM_SHUFFLE(2, 0, 2, 0));
    r[j + 8] = _mm512_shuffle_f32x4(t[j], t[j + 8], _MM_SHUFFLE(3, 1, 3, 1));
    r[j + 4] = _mm512_shuffle_f32x4(t[j + 4], t[j + 12], _MM_SHUFFLE(2, 0, 2, 0));
    r[j + 12] = _mm512_shuffle_f32x4(t[j + 4], t[j + 12], _MM_SHUFFLE(3, 1, 3, 1));
  }
}
// Packs columns of B whose depth is contiguous, so that a block of 16 columns is transposed.
// load(from, count) gives the lanes of the first `count` elements, zeros after them.
template <typename T, int64_t kLaneDepth, typename LoadLanes>
static void PackContiguousDepth(float* panel, const GemmPart& b, const LoadLanes& load) {
  constexpr int64_t kElements = kVector * kLaneDepth;
  const auto* data = static_cast<const T*>(b.data);
  for (int64_t half = 0; half < kTileCols; half += kVector) {
    for (int64_t k = 0; k < b.depth; k += kElements) {
      __m512 block[16];
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j) {
        const bool there = half + j < b.count;
        block[j] =
            there ? load(data + (half + j) * b.stride + k, b.depth - k) : _mm512_setzero_ps();
      }
      Transpose16(block);
      // The panel has room for a full block of depth.
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        _mm512_store_ps(panel + (k / kLaneDepth + i) * kTileCols + half, block[i]);
      }
    }
  }
}

}  // namespace mft
