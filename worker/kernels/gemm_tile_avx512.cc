// SPDX-License-Identifier: Apache-2.0
// Compiled with the target flags of its name (CMakeLists.txt). No templates of the standard
// library: the linker could pick their AVX-512 bodies for the rest of the program.
#include <immintrin.h>

#include "worker/kernels/gemm_tile.h"

namespace mft {

namespace {
constexpr int64_t kVector = 16;

// The first `count` lanes, none for count <= 0.
__mmask16 FirstLanes(int64_t count) {
  return count >= kVector ? __mmask16{0xFFFF}
         : count <= 0     ? __mmask16{0}
                          : static_cast<__mmask16>((1U << count) - 1);
}

template <int kRows, int kVectors>
void Store(const GemmTile& t, const __m512 (&sum)[kRows][kVectors]) {
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
template <int kRows, int kVectors, bool kByDepth>
void Multiply(const GemmTile& t) {
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
        sum[i][v] = _mm512_fmadd_ps(left, right[v], sum[i][v]);
      }
    }
    a += kDepthStep;
    b += kTileCols;
  }
  Store<kRows, kVectors>(t, sum);
}

template <int kVectors, bool kByDepth>
void MultiplyRows(const GemmTile& t) {
  static constexpr void (*kByRows[kTileRows])(const GemmTile&) = {Multiply<1, kVectors, kByDepth>,
                                                                  Multiply<2, kVectors, kByDepth>,
                                                                  Multiply<3, kVectors, kByDepth>,
                                                                  Multiply<4, kVectors, kByDepth>,
                                                                  Multiply<5, kVectors, kByDepth>,
                                                                  Multiply<6, kVectors, kByDepth>,
                                                                  Multiply<7, kVectors, kByDepth>,
                                                                  Multiply<8, kVectors, kByDepth>,
                                                                  Multiply<9, kVectors, kByDepth>,
                                                                  Multiply<10, kVectors, kByDepth>,
                                                                  Multiply<11, kVectors, kByDepth>,
                                                                  Multiply<12, kVectors, kByDepth>,
                                                                  Multiply<13, kVectors, kByDepth>,
                                                                  Multiply<14, kVectors, kByDepth>};
  kByRows[t.rows - 1](t);
}

void MultiplyTile(const GemmTile& t) {
  if (t.cols <= kVector) {
    t.by_depth ? MultiplyRows<1, true>(t) : MultiplyRows<1, false>(t);
  } else {
    t.by_depth ? MultiplyRows<2, true>(t) : MultiplyRows<2, false>(t);
  }
}

void CopyRow(float* to, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += kVector) {
    const __mmask16 lanes = FirstLanes(count - i);
    _mm512_mask_storeu_ps(to + i, lanes, _mm512_maskz_loadu_ps(lanes, from + i));
  }
}

void PackRows(float* panel, const GemmPart& a) {
  const auto* data = static_cast<const float*>(a.data);
  if (a.transposed) {
    const __mmask16 lanes = FirstLanes(a.count);
    for (int64_t k = 0; k < a.depth; ++k) {
      _mm512_store_ps(panel + k * kPanelDepthStride,
                      _mm512_maskz_loadu_ps(lanes, data + k * a.stride));
    }
    return;
  }
  for (int64_t i = 0; i < a.count; ++i) {
    CopyRow(panel + i * kPanelRowStride, data + i * a.stride, a.depth);
  }
}

// Rows of 16 to columns: neighbours first, then pairs, then quarters of a register.
void Transpose16(__m512 (&r)[16]) {
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

__m512 Load(__mmask16 lanes, const float* from) {
  return _mm512_maskz_loadu_ps(lanes, from);
}

// bf16 is the upper half of fp32.
__m512 Load(__mmask16 lanes, const uint16_t* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

template <typename T>
void PackColsOf(float* panel, const GemmPart& b) {
  const auto* data = static_cast<const T*>(b.data);
  if (!b.transposed) {
    const __mmask16 left = FirstLanes(b.count);
    const __mmask16 right = FirstLanes(b.count - kVector);
    for (int64_t k = 0; k < b.depth; ++k) {
      const T* row = data + k * b.stride;
      _mm512_store_ps(panel + k * kTileCols, Load(left, row));
      _mm512_store_ps(panel + k * kTileCols + kVector,
                      Load(right, row + (right == 0 ? 0 : kVector)));
    }
    return;
  }
  for (int64_t half = 0; half < kTileCols; half += kVector) {
    for (int64_t k = 0; k < b.depth; k += kVector) {
      const __mmask16 lanes = FirstLanes(b.depth - k);
      __m512 block[16];
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j) {
        const bool there = half + j < b.count;
        block[j] = there ? Load(lanes, data + (half + j) * b.stride + k) : _mm512_setzero_ps();
      }
      Transpose16(block);
      // The panel has room for a full block of depth.
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        _mm512_store_ps(panel + (k + i) * kTileCols + half, block[i]);
      }
    }
  }
}

void PackCols(float* panel, const GemmPart& b) {
  b.bf16 ? PackColsOf<uint16_t>(panel, b) : PackColsOf<float>(panel, b);
}
}  // namespace

const GemmTileKernels& GemmTileAvx512() {
  static constexpr GemmTileKernels kKernels = {MultiplyTile, PackRows, PackCols};
  return kKernels;
}

}  // namespace mft
