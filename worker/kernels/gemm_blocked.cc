// SPDX-License-Identifier: Apache-2.0
// Blocking as in BLIS (Van Zee and van de Geijn, 2015) for tiles that gemm_tile.h multiplies:
// panels of B are packed once and shared by all threads; a panel of A is copied by the thread that
// multiplies it with a group of B's panels, which stay in its second-level cache. The order of the
// sums over depth does not depend on who does what. Letters: y [M, N], depth K.
#include "worker/kernels/gemm_blocked.h"

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <new>

#include "worker/kernels/gemm_cpu.h"
#include "worker/kernels/gemm_tile.h"

namespace mft {

namespace {
constexpr int64_t kMaxColPanels = 64;     // packed at a time: 2 MiB
constexpr int64_t kColPanelGroup = 16;    // 512 KiB: half of a second-level cache
constexpr int64_t kFewRows = 4;           // fewer rows do not repay packing
constexpr int64_t kSerialWork = 1 << 18;  // multiplications that do not repay waking threads

int64_t CeilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

int64_t RoundUp(int64_t value, int64_t step) {
  return CeilDiv(value, step) * step;
}

// Packed panels of B, kept from call to call by the calling thread.
class PanelBuffer {
 public:
  PanelBuffer() = default;
  ~PanelBuffer() { Free(); }
  PanelBuffer(const PanelBuffer&) = delete;
  PanelBuffer& operator=(const PanelBuffer&) = delete;
  float* Get(int64_t panels) {
    if (panels > panels_) {
      Free();
      data_ = static_cast<float*>(::operator new(
          static_cast<size_t>(panels * kColPanelFloats) * sizeof(float), kAlignment));
      panels_ = panels;
    }
    return data_;
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  void Free() { ::operator delete(data_, kAlignment); }
  float* data_ = nullptr;
  int64_t panels_ = 0;
};

struct Product {
  const GemmTileKernels& tiles;
  View y, a, b;
  KernelTable::Gemm options;
  int64_t m = 0, n = 0, k = 0;
  int64_t panel_rows = 0;  // of a panel of A: the rows shared out evenly
  int64_t depth = 0;       // of a block
};

Product MakeProduct(
    const GemmTileKernels& tiles, View y, View a, View b, KernelTable::Gemm options) {
  Product p{.tiles = tiles, .y = y, .a = a, .b = b, .options = options, .m = y.rows, .n = y.cols};
  p.k = options.transpose_a ? a.rows : a.cols;
  p.panel_rows = RoundUp(CeilDiv(p.m, CeilDiv(p.m, tiles.rows)), tiles.row_step);
  const int64_t lanes = CeilDiv(p.k, tiles.lane_depth);
  p.depth = RoundUp(CeilDiv(lanes, CeilDiv(lanes, kTileDepth)), tiles.lane_step) * tiles.lane_depth;
  return p;
}

// Columns [begin, end) of y and depth [k, k + depth) of the sums.
struct Block {
  int64_t begin = 0, end = 0;
  int64_t k = 0, depth = 0;
  int64_t panels() const { return CeilDiv(end - begin, kTileCols); }
};

void PackBlock(const Product& p, const Block& block, float* panels, int thread, int threads) {
  const bool transposed = p.options.transpose_b;
  const bool bf16 = p.b.type == ElementType::kBF16;
  const auto at = [&](int64_t row, int64_t col) -> const void* {
    return bf16 ? static_cast<const void*>(p.b.bf16_row(row) + col) : p.b.row(row) + col;
  };
  for (int64_t i = thread; i < block.panels(); i += threads) {
    const int64_t col = block.begin + i * kTileCols;
    p.tiles.pack_cols(panels + i * kColPanelFloats,
                      {.data = transposed ? at(col, block.k) : at(block.k, col),
                       .stride = p.b.stride,
                       .count = std::min(kTileCols, block.end - col),
                       .depth = block.depth,
                       .transposed = transposed,
                       .bf16 = bf16});
  }
}

// One panel of A times a group of B's panels.
void MultiplyPanel(const Product& p,
                   const Block& block,
                   const float* panels,
                   int64_t row_panel,
                   int64_t first,
                   int64_t last) {
  alignas(64) float rows[kRowPanelFloats];
  const int64_t row = row_panel * p.panel_rows;
  const int64_t count = std::min(p.panel_rows, p.m - row);
  const bool transposed = p.options.transpose_a;
  p.tiles.pack_rows(rows,
                    {.data = transposed ? p.a.row(block.k) + row : p.a.row(row) + block.k,
                     .stride = p.a.stride,
                     .count = count,
                     .depth = block.depth,
                     .transposed = transposed});
  for (int64_t i = first; i < last; ++i) {
    const int64_t col = block.begin + i * kTileCols;
    p.tiles.multiply({.a = rows,
                      .b = panels + i * kColPanelFloats,
                      .c = p.y.row(row) + col,
                      .c_stride = p.y.stride,
                      .depth = CeilDiv(block.depth, p.tiles.lane_depth),
                      .rows = count,
                      .cols = std::min(kTileCols, block.end - col),
                      .alpha = p.options.alpha,
                      .beta = block.k == 0 ? p.options.beta : 1.0F,
                      .by_depth = transposed});
  }
}

void MultiplyBlock(
    const Product& p, const Block& block, const float* panels, int thread, int threads) {
  const int64_t row_panels = CeilDiv(p.m, p.panel_rows);
  int64_t group = std::min(kColPanelGroup, block.panels());
  while (group > 1 && CeilDiv(block.panels(), group) * row_panels < 4 * threads) {
    group /= 2;
  }
  const int64_t tasks = CeilDiv(block.panels(), group) * row_panels;
  for (int64_t task = tasks * thread / threads; task < tasks * (thread + 1) / threads; ++task) {
    const int64_t first = task / row_panels * group;
    MultiplyPanel(
        p, block, panels, task % row_panels, first, std::min(first + group, block.panels()));
  }
}

// What one of `threads` threads does; `sync` waits for all of them. As many blocks of depth as fit
// are packed at a time: a thread multiplies the same part of y in each of them, so it waits for the
// others only when panels change.
template <typename Sync>
void Run(const Product& p, float* panels, int thread, int threads, const Sync& sync) {
  if (p.tiles.begin != nullptr) {
    p.tiles.begin();
  }
  for (int64_t begin = 0; begin < p.n; begin += kMaxColPanels * kTileCols) {
    Block block{.begin = begin, .end = std::min(begin + kMaxColPanels * kTileCols, p.n)};
    const int64_t floats = block.panels() * kColPanelFloats;
    const int64_t depths = kMaxColPanels / block.panels() * p.depth;
    for (int64_t first = 0; first < p.k; first += depths) {
      const int64_t last = std::min(first + depths, p.k);
      for (const bool pack : {true, false}) {
        float* at = panels;
        for (int64_t k = first; k < last; k += p.depth, at += floats) {
          block.k = k;
          block.depth = std::min(p.depth, p.k - k);
          pack ? PackBlock(p, block, at, thread, threads)
               : MultiplyBlock(p, block, at, thread, threads);
        }
        sync();
      }
    }
  }
  if (p.tiles.end != nullptr) {
    p.tiles.end();
  }
}

void Multiply(const GemmTileKernels& tiles, View y, View a, View b, KernelTable::Gemm options) {
  if (y.rows < kFewRows || y.cols == 0 || a.rows == 0 || a.cols == 0) {
    GemmCpu(y, a, b, options);
    return;
  }
  const Product p = MakeProduct(tiles, y, a, b, options);
  static thread_local PanelBuffer buffer;
  const int64_t all = CeilDiv(p.n, kTileCols) * CeilDiv(p.k, p.depth);
  float* panels = buffer.Get(std::min(all, kMaxColPanels));
  if (omp_in_parallel() != 0 || omp_get_max_threads() == 1 || p.m * p.n * p.k < kSerialWork) {
    Run(p, panels, 0, 1, [] {});
    return;
  }
#pragma omp parallel
  Run(p, panels, omp_get_thread_num(), omp_get_num_threads(), [] {
#pragma omp barrier
  });
}
}  // namespace

void GemmBlocked(View y, View a, View b, KernelTable::Gemm options) {
  Multiply(GemmTileAvx512(), y, a, b, options);
}

void GemmBlockedBf16(View y, View a, View b, KernelTable::Gemm options) {
  Multiply(GemmTileAvx512Bf16(), y, a, b, options);
}

void GemmBlockedAmx(View y, View a, View b, KernelTable::Gemm options) {
  Multiply(GemmTileAmx(), y, a, b, options);
}

}  // namespace mft
