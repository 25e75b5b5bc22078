// SPDX-License-Identifier: Apache-2.0
// The kernels of activations for whatever runs blocks (block_table.h). A kernel that writes an
// Activation with memory for quantised rows quantises them too.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "worker/kernels/cuda/block_table.h"
#include "worker/kernels/cuda/ffn_blocks.h"
#include "worker/kernels/cuda/norm_blocks.h"
#include "worker/kernels/cuda/quantise_blocks.h"
#include "worker/kernels/cuda/softmax_blocks.h"

namespace mft::cuda {

static_assert(kQuantBlock == kQuantBlockSize);

// Whether rows are read kVector elements at a time. REQUIRES that they are where rows are quantised
// as they are written.
template <typename T>
bool AreVectorised(std::initializer_list<View> views,
                   std::initializer_list<QuantisedRows> written = {}) {
  const bool vectorised = std::all_of(views.begin(), views.end(), IsVectorised<T>);
  for (const QuantisedRows& rows : written) {
    if (rows.present() && (!vectorised || rows.data.cols % kQuantBlockSize != 0)) {
      throw std::invalid_argument("rows of " + std::to_string(rows.data.cols) +
                                  " elements cannot be quantised: they are read 16 bytes at a "
                                  "time and have blocks of 128");
    }
  }
  return vectorised;
}

// Read only.
inline View VectorView(const float* values, int64_t size) {
  return MatrixView(const_cast<float*>(values), 1, size);
}

inline QuantisedOut QuantisedOutOf(const QuantisedRows& rows) {
  return {RowsOf<F8E4M3>(rows.data), RowsOf<float>(rows.scales)};
}

template <typename T>
WrittenRows<T> WrittenOf(const Activation& x) {
  return {RowsOf<T>(x.view), QuantisedOutOf(x.quantised)};
}

// Activations of the table's type T.
template <typename Device, typename T>
struct Activations {
  static void RmsNorm(const Activation& y, View x, const float* weight, float eps) {
    const View weights = VectorView(weight, x.cols);
    WithWidth<T>(AreVectorised<T>({y.view, x, weights}, {y.quantised}), [&](auto width) {
      Device::template Launch<kRowThreads>(
          x.rows, RmsNormRow<T, width()>{WrittenOf<T>(y), RowsOf<T>(x), weight, eps});
    });
  }

  static void RmsNormBackward(
      const Activation& dx, View dy, View x, const float* weight, float eps) {
    const View weights = VectorView(weight, x.cols);
    WithWidth<T>(AreVectorised<T>({dx.view, dy, x, weights}, {dx.quantised}), [&](auto width) {
      Device::template Launch<kRowThreads>(
          x.rows,
          RmsNormBackwardRow<T, width()>{
              WrittenOf<T>(dx), RowsOf<T>(dy), RowsOf<T>(x), weight, eps});
    });
  }

  static void NormWeightGradient(float* d_weight, View dy, View x, float eps) {
    using Gradient = RmsNormWeightGradient<T>;
    auto* const inverse =
        static_cast<float*>(Device::Scratch(static_cast<size_t>(x.rows) * sizeof(float)));
    Device::template Launch<kRowThreads>(x.rows, InverseRmsOfRow<T>{RowsOf<T>(x), eps, inverse});
    Device::template Launch<kWarp>(
        CeilDiv(x.cols, Gradient::kColumns),
        Gradient{RowsOf<T>(dy), RowsOf<T>(x), x.rows, inverse, d_weight});
  }

  static void Rotary(const Activation& x,
                     const int32_t* position,
                     const float* table,
                     int64_t head_dim,
                     bool backward) {
    const bool whole = head_dim % TypeOf<T>::kVector == 0;
    if (x.quantised.present() && !whole) {
      throw std::invalid_argument("heads of " + std::to_string(head_dim) +
                                  " elements cannot be quantised as they are rotated");
    }
    WithWidth<T>(AreVectorised<T>({x.view}, {x.quantised}) && whole, [&](auto width) {
      Device::template Launch<kRowThreads>(
          x.view.rows,
          RotaryRow<T, width()>{
              WrittenOf<T>(x), position, table, head_dim, backward ? -1.0F : 1.0F});
    });
  }

  static void Swiglu(const Activation& act, View gate, View up) {
    WithWidth<T>(AreVectorised<T>({act.view, gate, up}, {act.quantised}), [&](auto width) {
      Device::template Launch<kRowThreads>(
          gate.rows, SwigluRow<T, width()>{WrittenOf<T>(act), RowsOf<T>(gate), RowsOf<T>(up)});
    });
  }

  static void SwigluBackward(View d_act, const Activation& gate, const Activation& up) {
    if (gate.quantised.present() != up.quantised.present()) {
      throw std::invalid_argument("gradients of gate and up are both quantised, or neither");
    }
    GateUpGradients(d_act, gate, up, nullptr);
  }

  static void SwigluBackwardDot(View d_act, View gate, View up, float* dot) {
    GateUpGradients(d_act, gate, up, dot);
  }

  static void GateUpGradients(View d_act,
                              const Activation& gate,
                              const Activation& up,
                              float* dot) {
    const bool vectorised =
        AreVectorised<T>({d_act, gate.view, up.view}, {gate.quantised, up.quantised});
    WithWidth<T>(vectorised, [&](auto width) {
      Device::template Launch<kRowThreads>(
          d_act.rows,
          SwigluBackwardRow<T, width()>{
              RowsOf<T>(d_act), WrittenOf<T>(gate), WrittenOf<T>(up), dot});
    });
  }

  static void Dropout(View y, View x, const DropoutMask& mask, bool add) {
    const DropoutRowKey key = elementwise::DropoutKeyOf(mask.key, mask.probability);
    WithWidth<T>(IsVectorised<T>(y) && IsVectorised<T>(x), [&](auto width) {
      Device::template Launch<kRowThreads>(
          x.rows,
          DropoutRow<T, width()>{RowsOf<T>(y), RowsOf<T>(x), mask.pack, mask.row, key, add});
    });
  }

  static void FoldSoftmax(
      SoftmaxState* state, View logits, int64_t first, const int32_t* target, View sums) {
    WithWidth<T>(IsVectorised<T>(logits), [&](auto width) {
      Device::template Launch<kLogitThreads>(
          logits.rows,
          FoldSoftmaxRow<T, width()>{state, RowsOf<T>(logits), first, target, RowsOf<T>(sums)});
    });
  }

  static void SoftmaxGradient(View logits,
                              const SoftmaxState* state,
                              int64_t first,
                              const int32_t* target,
                              const float* exp_factor,
                              const float* target_factor) {
    Device::template Launch<kLogitThreads>(
        logits.rows,
        SoftmaxGradientRow<T>{RowsOf<T>(logits), state, first, target, exp_factor, target_factor});
  }
};

}  // namespace mft::cuda
