// SPDX-License-Identifier: Apache-2.0
// Quantisation for whatever runs blocks (block_table.h).
#pragma once

#include "worker/kernels/cuda/activation_table.h"

namespace mft::cuda {

template <typename Device, typename T>
struct Quantisation {
  static void Weight(const QuantisedMat& q, View w) {
    const int64_t blocks_of_row = w.cols / kQuantBlock;
    Device::template Launch<kRowThreads>(
        w.rows / kQuantBlock * blocks_of_row,
        QuantiseWeightBlock<T>{
            RowsOf<F8E4M3>(q.data), RowsOf<T>(w), RowsOf<float>(q.scales), blocks_of_row});
  }

  static void Input(const Activation& x) {
    if (!x.quantised.present()) {
      throw std::invalid_argument("rows without memory for what they are when quantised");
    }
    AreVectorised<T>({x.view}, {x.quantised});  // or throws
    Device::template Launch<kRowThreads>(
        x.view.rows,
        QuantiseRowBlock<T, TypeOf<T>::kVector>{QuantisedOutOf(x.quantised), RowsOf<T>(x.view)});
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
