// SPDX-License-Identifier: Apache-2.0
// Dropout of the adapters' inputs (finetune-spec 3.3): y = W x + scale B A dropout(x). Projections
// that share an input share a mask.
#pragma once

#include <cstdint>

#include "worker/kernels/kernels.h"

namespace mft {

// Where in a block an adapter's input is dropped.
enum class DropoutSite { kQkv, kO, kGateUp, kDown };

// One pass over a tile; probability 0: nothing is dropped.
struct Dropout {
  double probability = 0;
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t layer = 0;
  int64_t expert = -1;            // -1: not an expert's
  const int64_t* pack = nullptr;  // [T]
  const int32_t* row = nullptr;   // [T]
  // The same in the process's memory, where kernels read another.
  const int64_t* host_pack = nullptr;
  const int32_t* host_row = nullptr;
  View scratch;  // [any, widest input]
};

// The dropout of one group of adapters, from row `begin` of the tile on. Masks are made when they
// are needed, a few rows at a time, so that no mask and no dropped input is kept.
class InputDropout {
 public:
  InputDropout(const KernelTable& kernels, const Dropout& dropout, DropoutSite site, int64_t begin);

  bool active() const { return dropout_.probability > 0; }
  int64_t chunk_rows() const { return dropout_.scratch.rows; }
  // Rows [begin, begin + count) of dropout(x) in the scratch, until the next call.
  View Dropped(View x, int64_t begin, int64_t count) const;
  // The scratch for rows of `cols`, and adding dropout(it) to rows of dx.
  View Scratch(int64_t cols, int64_t count) const;
  void AddDropped(View dx, View scratch, int64_t begin) const;

 private:
  DropoutMask MaskAt(int64_t begin) const;

  const KernelTable& kernels_;
  const Dropout& dropout_;
  uint64_t key_;
  int64_t begin_;
};

}  // namespace mft
