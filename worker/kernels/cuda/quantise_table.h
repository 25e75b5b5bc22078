// SPDX-License-Identifier: Apache-2.0
// Quantisation for whatever runs blocks (block_table.h).
#pragma once

#include "worker/kernels/cuda/block_table.h"
#include "worker/kernels/cuda/quantise_blocks.h"

namespace mft::cuda {

static_assert(kQuantBlock == kQuantBlockSize);

template <typename Device, typename T>
struct Quantisation {
  static void Weight(const QuantisedMat& q, View w) {
    const int64_t blocks_of_row = w.cols / kQuantBlock;
    Device::template Launch<kRowThreads>(
        w.rows / kQuantBlock * blocks_of_row,
        QuantiseWeightBlock<T>{
            RowsOf<F8E4M3>(q.data), RowsOf<T>(w), RowsOf<float>(q.scales), blocks_of_row});
  }

  static void Input(View q, View scales, View x) {
    Device::template Launch<kWarp>(
        x.rows * (x.cols / kQuantBlock),
        QuantiseRowBlock<T>{RowsOf<F8E4M3>(q), RowsOf<T>(x), RowsOf<float>(scales)});
  }

  static void Transpose(const QuantisedMat& to, const QuantisedMat& from) {
    Device::template Launch<kRowThreads>(
        from.data.rows / kQuantBlock * (from.data.cols / kQuantBlock),
        TransposeQuantised{RowsOf<F8E4M3>(to.data), RowsOf<F8E4M3>(from.data)});
    Device::template Launch<kWarp>(
        from.scales.rows, TransposeScales{RowsOf<float>(to.scales), RowsOf<float>(from.scales)});
  }
};

}  // namespace mft::cuda
