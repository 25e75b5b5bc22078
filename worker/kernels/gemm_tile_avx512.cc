// SPDX-License-Identifier: Apache-2.0
// Tiles of fp32. Compiled with the target flags of its name (CMakeLists.txt).
#include <immintrin.h>

#include "worker/kernels/gemm_tile.h"
#include "worker/kernels/gemm_tile_body.h"

namespace mft {

namespace {
struct Fp32Lane {
  static __m512 MultiplyAdd(__m512 left, __m512 right, __m512 sum) {
    return _mm512_fmadd_ps(left, right, sum);
  }
};

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
  if (!b.transposed) {
    const auto* data = static_cast<const T*>(b.data);
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
  PackContiguousDepth<T, 1>(
      panel, b, [](const T* from, int64_t count) { return Load(FirstLanes(count), from); });
}

void PackCols(float* panel, const GemmPart& b) {
  b.bf16 ? PackColsOf<uint16_t>(panel, b) : PackColsOf<float>(panel, b);
}
}  // namespace

const GemmTileKernels& GemmTileAvx512() {
  static constexpr GemmTileKernels kKernels = {.lane_depth = 1,
                                               .multiply = MultiplyTile<Fp32Lane>,
                                               .pack_rows = PackRows,
                                               .pack_cols = PackCols};
  return kKernels;
}

}  // namespace mft
