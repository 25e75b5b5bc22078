// SPDX-License-Identifier: Apache-2.0
// Tiles of bf16 pairs. Compiled with the target flags of its name (CMakeLists.txt).
#include <immintrin.h>

#include "worker/kernels/gemm_tile.h"
#include "worker/kernels/gemm_tile_bf16_body.h"

namespace mft {

namespace {
struct Bf16Lane {
  static __m512 MultiplyAdd(__m512 left, __m512 right, __m512 sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)left, (__m512bh)right);
  }
};

void PackRows(float* panel, const GemmPart& a) {
  if (!a.transposed) {
    PackContiguousRows(panel, a);
    return;
  }
  PackByDepth<float>(a, [panel](int64_t lane, const PairedRows& pairs) {
    _mm512_store_si512(panel + lane * kPanelDepthStride, pairs.first);
  });
}
}  // namespace

const GemmTileKernels& GemmTileAvx512Bf16() {
  static constexpr GemmTileKernels kKernels = {.lane_depth = 2,
                                               .multiply = MultiplyTile<Bf16Lane>,
                                               .pack_rows = PackRows,
                                               .pack_cols = PackCols};
  return kKernels;
}

}  // namespace mft
