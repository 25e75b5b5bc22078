// SPDX-License-Identifier: Apache-2.0
// The innermost part of a matrix product: one tile of the result from one panel of each operand.
// The blocking around it is gemm_blocked.cc.
#pragma once

#include <cstdint>

namespace mft {

inline constexpr int64_t kTileRows = 14;  // 28 accumulators of 16 floats; 4 registers remain
inline constexpr int64_t kAmxTileRows = 32;
inline constexpr int64_t kTileCols = 32;
inline constexpr int64_t kTileDepth = 256;  // a panel of B, 32 KiB, stays in the first-level cache

// Panels hold lanes of 32 bits: an fp32 value, or the bf16 values of two successive depths, so that
// both have one shape. kTileDepth and all strides count lanes.
//
// Panel of A: rows [rows][kPanelRowStride], or, where A is transposed in memory, by depth
// [kTileDepth][kPanelDepthStride]. Both are copies without a transposition. Tiles of AMX take rows
// only: a transposed A is turned as it is packed.
inline constexpr int64_t kPanelRowStride = kTileDepth + 16;
inline constexpr int64_t kPanelDepthStride = 16;
inline constexpr int64_t kRowPanelFloats = kAmxTileRows * kPanelRowStride;
// Panel of B: [kTileDepth][kTileCols], missing columns zero.
inline constexpr int64_t kColPanelFloats = kTileDepth * kTileCols;

// c [rows, cols] = alpha a b + beta c; with beta 0, c is not read.
struct GemmTile {
  const float* a = nullptr;  // 64-byte aligned panels
  const float* b = nullptr;
  float* c = nullptr;
  int64_t c_stride = 0;
  int64_t depth = 0;  // lanes, at most kTileDepth
  int64_t rows = 0;   // at most the kernels'
  int64_t cols = 0;   // at most kTileCols
  float alpha = 1;
  float beta = 0;
  bool by_depth = false;  // the layout of the panel of A
};

// A part of an operand, [rows or cols, depth] of the product; `transposed`: depth is its row index
// in memory for A, its column index for B.
struct GemmPart {
  const void* data = nullptr;  // float; for B also bf16
  int64_t stride = 0;
  int64_t count = 0;  // rows of A, columns of B
  int64_t depth = 0;  // elements
  bool transposed = false;
  bool bf16 = false;
};

// Compiled with the flags of their names: call only where the processor has them.
struct GemmTileKernels {
  int64_t rows = kTileRows;  // of a tile
  int64_t row_step = 1;      // work is done for a multiple of so many rows
  int64_t lane_depth = 1;    // elements of depth in a lane
  int64_t lane_step = 1;     // work is done for a multiple of so many lanes
  void (*multiply)(const GemmTile& tile) = nullptr;
  void (*pack_rows)(float* panel, const GemmPart& a) = nullptr;
  void (*pack_cols)(float* panel, const GemmPart& b) = nullptr;
  // Called by each thread before its first tile and after its last; nullptr: nothing is to be done.
  void (*begin)() = nullptr;
  void (*end)() = nullptr;
};
const GemmTileKernels& GemmTileAvx512();
// Operands are rounded to bf16 (nearest, ties to even) as they are packed; the products of a pair
// and the sums are fp32 (VDPBF16PS, which takes denormals for zero).
const GemmTileKernels& GemmTileAvx512Bf16();
// The same on the tile registers of AMX (TDPBF16PS, which takes denormals for zero too), which the
// process must have been permitted.
const GemmTileKernels& GemmTileAmx();

}  // namespace mft
