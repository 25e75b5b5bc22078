// SPDX-License-Identifier: Apache-2.0
// A device's table from what runs blocks (block_table.h) and its matrix product.
#pragma once

#include <cmath>

#include "worker/kernels/cuda/activation_table.h"
#include "worker/kernels/cuda/block_table.h"
#include "worker/kernels/cuda/quantise_table.h"

namespace mft::cuda {

template <typename Device, typename T>
struct RowsOfExperts {
  static void Route(View weight, int32_t* chosen, View logits) {
    Device::template Launch<kRowsOfRouter>(
        CeilDiv(logits.rows, kRowsOfRouter),
        RouteRows<T>{RowsOf<float>(weight), chosen, RowsOf<T>(logits), logits.rows});
  }

  static void RouteBackward(View d_logits, View weighted, View weight, const int32_t* chosen) {
    Device::template Launch<kRowsOfRouter>(CeilDiv(d_logits.rows, kRowsOfRouter),
                                           RouteBackwardRows<T>{RowsOf<T>(d_logits),
                                                                RowsOf<float>(weighted),
                                                                RowsOf<float>(weight),
                                                                chosen,
                                                                d_logits.rows});
  }

  static void Accumulate(View y, View x, const int32_t* index) {
    using Columns = AccumulateColumns<T>;
    Device::template Launch<static_cast<int>(Columns::kColumns)>(
        CeilDiv(x.cols, Columns::kColumns), Columns{RowsOf<float>(y), RowsOf<T>(x), x.rows, index});
  }
};

inline AttentionSizes SizesOf(const AttentionShape& shape) {
  return {shape.heads,
          shape.kv_heads,
          shape.head_dim,
          shape.device_cu_q,
          shape.device_cu_k,
          static_cast<int64_t>(shape.cu_q.size()) - 1,
          1.0F / std::sqrt(static_cast<float>(shape.head_dim))};
}

template <typename Device, typename T>
struct RowAttention {
  static void Check(const AttentionShape& shape) {
    if (shape.head_dim > kMaxHeadDim) {
      throw std::invalid_argument("heads wider than 256 elements have no attention kernel");
    }
  }

  static void Forward(View out, View lse, View q, View k, View v, const AttentionShape& shape) {
    Check(shape);
    Device::template Launch<kWarp>(q.rows * shape.heads,
                                   AttentionRow<T>{RowsOf<T>(out),
                                                   static_cast<float*>(lse.data),
                                                   RowsOf<T>(q),
                                                   RowsOf<T>(k),
                                                   RowsOf<T>(v),
                                                   SizesOf(shape)});
  }

  static void Backward(const KernelTable::AttentionGrad& grad, const AttentionShape& shape) {
    Check(shape);
    const AttentionGradRows<T> rows{RowsOf<T>(grad.d_out),
                                    RowsOf<T>(grad.out),
                                    RowsOf<T>(grad.q),
                                    RowsOf<T>(grad.k),
                                    RowsOf<T>(grad.v),
                                    static_cast<const float*>(grad.lse.data),
                                    SizesOf(shape)};
    Device::template Launch<kWarp>(grad.q.rows * shape.heads,
                                   AttentionQueryGradRow<T>{rows, RowsOf<T>(grad.dq)});
    Device::template Launch<kWarp>(
        grad.k.rows * shape.kv_heads,
        AttentionKeyGradRow<T>{rows, RowsOf<T>(grad.dk), RowsOf<T>(grad.dv)});
  }
};

// All but `name` and `gemm`; attention is that of rows.
template <typename Device, typename T>
KernelTable MakeTable(const DeviceMemory& memory) {
  using Same = Activations<Device, T>;
  using Any = AnyRows<Device>;
  using Flat = FlatArenas<Device>;
  using Experts = RowsOfExperts<Device, T>;
  KernelTable table;
  table.type = TypeOf<T>::kType;
  table.memory = &memory;
  table.rms_norm = Same::RmsNorm;
  table.rms_norm_backward = Same::RmsNormBackward;
  table.rms_norm_weight_gradient = Same::NormWeightGradient;
  table.rotary = Same::Rotary;
  table.swiglu = Same::Swiglu;
  table.swiglu_backward = Same::SwigluBackward;
  table.swiglu_backward_dot = Same::SwigluBackwardDot;
  table.attention = RowAttention<Device, T>::Forward;
  table.attention_backward = RowAttention<Device, T>::Backward;
  table.fold_softmax = Same::FoldSoftmax;
  table.cross_entropy = Flat::CrossEntropy;
  table.fold_sum = Flat::Fold;
  table.softmax_gradient = Same::SoftmaxGradient;
  table.gather_rows = Any::Gather;
  table.scatter_add_rows = Any::ScatterAdd;
  table.accumulate_rows = Experts::Accumulate;
  table.add = Any::Add;
  table.copy_rows = Any::Copy;
  table.zero = Any::Zero;
  table.dropout = Same::Dropout;
  table.route = Experts::Route;
  table.route_backward = Experts::RouteBackward;
  table.scale_rows = Any::Scale;
  table.adamw = Flat::AdamW;
  table.sum_of_squares = Flat::SumOfSquares;
  table.convert = Any::Convert;
  table.fill_random = Any::Random;
  table.quantise = Quantisation<Device, T>::Weight;
  table.quantise_rows = Quantisation<Device, T>::Input;
  return table;
}

}  // namespace mft::cuda
