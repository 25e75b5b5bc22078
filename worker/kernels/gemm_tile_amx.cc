// SPDX-License-Identifier: Apache-2.0
// Tiles of bf16 pairs on the tile registers of AMX: 2 x 2 of 16 x 16 sums, each step of which is 32
// elements of depth. Compiled with the target flags of its name (CMakeLists.txt).
#include <immintrin.h>

#include "worker/kernels/gemm_tile.h"
#include "worker/kernels/gemm_tile_bf16_body.h"

namespace mft {

namespace {
constexpr int64_t kSide = 16;  // rows of a tile register, and lanes of a row

// Of LDTILECFG: each of the eight registers is whole. What is missing at the edges of a product is
// computed from zeros and not stored.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kTileConfig;

void Begin() {
  _tile_loadconfig(&kTileConfig);
}

void End() {
  _tile_release();  // the kernel need not save 8 KiB more at each switch of threads
}

// c = alpha sums + beta c, a row of sums being kTileCols long.
void StoreSums(const GemmTile& t, const float* sums) {
  const __m512 alpha = _mm512_set1_ps(t.alpha);
  const __m512 beta = _mm512_set1_ps(t.beta);
  for (int64_t v = 0; v < t.cols; v += kVector) {
    const __mmask16 lanes = FirstLanes(t.cols - v);
    for (int64_t i = 0; i < t.rows; ++i) {
      float* c = t.c + i * t.c_stride + v;
      __m512 value = _mm512_mul_ps(alpha, _mm512_load_ps(sums + i * kTileCols + v));
      if (t.beta != 0) {
        value = _mm512_fmadd_ps(beta, _mm512_maskz_loadu_ps(lanes, c), value);
      }
      _mm512_mask_storeu_ps(c, lanes, value);
    }
  }
}

template <int kRowTiles, int kColTiles>
void StoreTiles(float* to, int64_t stride) {
  const int64_t bytes = stride * static_cast<int64_t>(sizeof(float));
  _tile_stored(0, to, bytes);
  if constexpr (kColTiles > 1) {
    _tile_stored(1, to + kSide, bytes);
  }
  if constexpr (kRowTiles > 1) {
    _tile_stored(2, to + kSide * stride, bytes);
    if constexpr (kColTiles > 1) {
      _tile_stored(3, to + kSide * stride + kSide, bytes);
    }
  }
}

template <int kRowTiles, int kColTiles>
void MultiplyTiles(const GemmTile& t) {
  constexpr int64_t kRowBytes = kPanelRowStride * sizeof(float);
  constexpr int64_t kColBytes = kTileCols * sizeof(float);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const float* a = t.a;
  const float* b = t.b;
  for (int64_t k = 0; k < t.depth; k += kSide) {
    _tile_loadd(4, a, kRowBytes);
    _tile_loadd(6, b, kColBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kColTiles > 1) {
      _tile_loadd(7, b + kSide, kColBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRowTiles > 1) {
      _tile_loadd(5, a + kSide * kPanelRowStride, kRowBytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kColTiles > 1) {
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    a += kSide;
    b += kSide * kTileCols;
  }
  if (t.alpha == 1 && t.beta == 0 && t.rows == kRowTiles * kSide && t.cols == kColTiles * kSide) {
    StoreTiles<kRowTiles, kColTiles>(t.c, t.c_stride);
    return;
  }
  alignas(64) float sums[kAmxTileRows * kTileCols];
  StoreTiles<kRowTiles, kColTiles>(sums, kTileCols);
  StoreSums(t, sums);
}

void MultiplyTile(const GemmTile& t) {
  // GCC's tile loads do not say that they read memory: the panels are to be in it.
  __asm__ volatile("" ::: "memory");
  if (t.rows <= kSide) {
    t.cols <= kSide ? MultiplyTiles<1, 1>(t) : MultiplyTiles<1, 2>(t);
  } else {
    t.cols <= kSide ? MultiplyTiles<2, 1>(t) : MultiplyTiles<2, 2>(t);
  }
}

void StoreTransposed(float* panel, int64_t rows, __m512 (&lanes)[16]) {
  Transpose16(lanes);
  for (int64_t i = 0; i < rows; ++i) {
    _mm512_store_ps(panel + i * kPanelRowStride, lanes[i]);
  }
}

void PackRows(float* panel, const GemmPart& a) {
  if (!a.transposed) {
    PackContiguousRows(panel, a);
    return;
  }
  const auto* data = static_cast<const float*>(a.data);
  for (int64_t k = 0; k < a.depth; k += kElements) {
    GemmPart part = a;
    part.data = data + k * a.stride;
    part.depth = a.depth - k < kElements ? a.depth - k : kElements;
    __m512 first[kSide];
    __m512 last[kSide];
    for (int64_t i = 0; i < kSide; ++i) {
      first[i] = last[i] = _mm512_setzero_ps();
    }
    PackByDepth<float>(part, [&](int64_t lane, const PairedRows& pairs) {
      first[lane] = _mm512_castsi512_ps(pairs.first);
      last[lane] = _mm512_castsi512_ps(pairs.last);
    });
    StoreTransposed(panel + k / 2, a.count < kSide ? a.count : kSide, first);
    StoreTransposed(panel + k / 2 + kSide * kPanelRowStride, a.count - kSide, last);
  }
}

void PackColsOfWholeSteps(float* panel, const GemmPart& b) {
  PackCols(panel, b);
  for (int64_t lane = (b.depth + 1) / 2; lane % kSide != 0; ++lane) {
    _mm512_store_ps(panel + lane * kTileCols, _mm512_setzero_ps());
    _mm512_store_ps(panel + lane * kTileCols + kVector, _mm512_setzero_ps());
  }
}
}  // namespace

const GemmTileKernels& GemmTileAmx() {
  static constexpr GemmTileKernels kKernels = {.rows = kAmxTileRows,
                                               .row_step = kSide,
                                               .lane_depth = 2,
                                               .lane_step = kSide,
                                               .multiply = MultiplyTile,
                                               .pack_rows = PackRows,
                                               .pack_cols = PackColsOfWholeSteps,
                                               .begin = Begin,
                                               .end = End};
  return kKernels;
}

}  // namespace mft
