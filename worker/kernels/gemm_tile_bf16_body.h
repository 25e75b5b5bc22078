// SPDX-License-Identifier: Apache-2.0
// Panels of bf16 pairs, for the files that multiply them. All static, as in gemm_tile_body.h.
#pragma once

#include <immintrin.h>

#include "worker/kernels/gemm_tile.h"
#include "worker/kernels/gemm_tile_body.h"

namespace mft {

constexpr int64_t kElements = 2 * kVector;  // of a register

// The first `count` of 32 elements, none for count <= 0.
static __mmask32 FirstElements(int64_t count) {
  return count >= kElements ? __mmask32{0xFFFFFFFF}
         : count <= 0       ? __mmask32{0}
                            : (__mmask32{1} << count) - 1;
}

// Elements [0, count) of a row as bf16, the others zero.
static __m512i LoadElements(const float* from, int64_t count) {
  const __m512 low = _mm512_maskz_loadu_ps(FirstLanes(count), from);
  const __m512 high = _mm512_maskz_loadu_ps(FirstLanes(count - kVector), from + kVector);
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static __m512i LoadElements(const uint16_t* from, int64_t count) {
  return _mm512_maskz_loadu_epi16(FirstElements(count), from);
}

// (even[i], odd[i]) pairs of the first and of the last 16 elements of two rows.
struct PairedRows {
  __m512i first, last;
};

static PairedRows Pair(__m512i even, __m512i odd) {
  // Unpacking works within quarters of a register: 0..3 | 8..11 | .., so quarters are put in order.
  const __m512i low = _mm512_unpacklo_epi16(even, odd);
  const __m512i high = _mm512_unpackhi_epi16(even, odd);
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i last = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  return {_mm512_permutex2var_epi64(low, first, high), _mm512_permutex2var_epi64(low, last, high)};
}

// Rows of memory are depths: those of a pair are interleaved. Calls store(lane, pairs).
template <typename T, typename StorePairs>
static void PackByDepth(const GemmPart& part, const StorePairs& store) {
  const auto* data = static_cast<const T*>(part.data);
  for (int64_t k = 0; k < part.depth; k += 2) {
    const T* row = data + k * part.stride;
    const __m512i even = LoadElements(row, part.count);
    const bool whole = k + 1 < part.depth;
    store(k / 2,
          Pair(even, whole ? LoadElements(row + part.stride, part.count) : _mm512_setzero_si512()));
  }
}

// Rows of A whose depth is contiguous.
static void PackContiguousRows(float* panel, const GemmPart& a) {
  const auto* data = static_cast<const float*>(a.data);
  for (int64_t i = 0; i < a.count; ++i) {
    const float* row = data + i * a.stride;
    for (int64_t k = 0; k < a.depth; k += kElements) {
      _mm512_store_si512(panel + i * kPanelRowStride + k / 2, LoadElements(row + k, a.depth - k));
    }
  }
}

template <typename T>
static void PackColsOf(float* panel, const GemmPart& b) {
  if (!b.transposed) {
    PackByDepth<T>(b, [panel](int64_t lane, const PairedRows& pairs) {
      _mm512_store_si512(panel + lane * kTileCols, pairs.first);
      _mm512_store_si512(panel + lane * kTileCols + kVector, pairs.last);
    });
    return;
  }
  PackContiguousDepth<T, 2>(panel, b, [](const T* from, int64_t count) {
    return _mm512_castsi512_ps(LoadElements(from, count));
  });
}

static void PackCols(float* panel, const GemmPart& b) {
  b.bf16 ? PackColsOf<uint16_t>(panel, b) : PackColsOf<float>(panel, b);
}
}  // namespace mft
