// SPDX-License-Identifier: Apache-2.0
// Element-wise kernels of attention's and the MLP's input and output: rotary, SwiGLU, dropout. A
// row a block; the bodies are elementwise.h's.
#pragma once

#include "worker/kernels/cuda/block_load.h"
#include "worker/kernels/dropout_row.h"
#include "worker/kernels/elementwise.h"

namespace mft::cuda {

// table [positions, E/2, (cos, sin)]; E is even, and a multiple of kWidth where that is not 1.
template <typename T, int kWidth>
struct RotaryRow {
  Rows<T> x;
  const int32_t* position;
  const float* table;
  int64_t head_dim;
  float sign;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    T* const in = x(row);
    const float* const angles = table + position[row] * head_dim;
    constexpr int kPairs = kWidth == 1 ? 1 : kWidth / 2;
    block.ForEach(x.cols / (2 * kPairs), [&](int64_t i) {
      const float* const angle = angles + i * 2 * kPairs % head_dim;
      if constexpr (kWidth == 1) {
        float a = in[2 * i];
        float b = in[2 * i + 1];
        elementwise::RotatePair(a, b, angle[0], sign * angle[1]);
        in[2 * i] = T(a);
        in[2 * i + 1] = T(b);
      } else {
        float v[kWidth];
        Load<kWidth>(v, in, i);
        for (int k = 0; k < kPairs; ++k) {
          elementwise::RotatePair(v[2 * k], v[2 * k + 1], angle[2 * k], sign * angle[2 * k + 1]);
        }
        Store<kWidth>(in, i, v);
      }
    });
  }
};

template <typename T, int kWidth>
struct SwigluRow {
  Rows<T> act, gate, up;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    T* const out = act(row);
    const T* const gate_row = gate(row);
    const T* const up_row = up(row);
    block.ForEach(act.cols / kWidth, [&](int64_t i) {
      float g[kWidth];
      float u[kWidth];
      Load<kWidth>(g, gate_row, i);
      Load<kWidth>(u, up_row, i);
      for (int k = 0; k < kWidth; ++k) {
        g[k] = elementwise::Swiglu(g[k], u[k]);
      }
      Store<kWidth>(out, i, g);
    });
  }
};

// dot, if not null: of the row.
template <typename T, int kWidth>
struct SwigluBackwardRow {
  Rows<T> d_act, gate, up;
  float* dot;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    T* const d_row = d_act(row);
    T* const gate_row = gate(row);
    T* const up_row = up(row);
    const auto element = [&](int64_t i) {
      float d[kWidth];
      float g[kWidth];
      float u[kWidth];
      Load<kWidth>(d, d_row, i);
      Load<kWidth>(g, gate_row, i);
      Load<kWidth>(u, up_row, i);
      float sum = 0;
      for (int k = 0; k < kWidth; ++k) {
        sum += elementwise::SwigluBackward(d[k], g[k], u[k]);
      }
      Store<kWidth>(d_row, i, d);
      Store<kWidth>(gate_row, i, g);
      Store<kWidth>(up_row, i, u);
      return sum;
    };
    const int64_t packs = d_act.cols / kWidth;
    if (dot == nullptr) {
      block.ForEach(packs, element);
      return;
    }
    const float sum = block.Sum(packs, element);
    block.Once([&] { dot[row] = sum; });
  }
};

template <typename T, int kWidth>
struct DropoutRow {
  Rows<T> y, x;
  const int64_t* pack;
  const int32_t* pack_row;
  DropoutRowKey key;
  bool add;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    DropoutRowKey of_row = key;
    of_row.row = static_cast<uint32_t>(pack_row[row]);
    of_row.pack = static_cast<uint64_t>(pack[row]);
    const T* const in = x(row);
    T* const out = y(row);
    block.ForEach(x.cols / kWidth, [&](int64_t i) {
      float v[kWidth];
      float before[kWidth] = {};
      Load<kWidth>(v, in, i);
      if (add) {
        Load<kWidth>(before, out, i);
      }
      uint32_t words[4][1];
      for (int k = 0; k < kWidth; ++k) {
        const int64_t column = i * kWidth + k;
        if (k % 4 == 0) {
          elementwise::DropoutWords(words, of_row, column / 4);
        }
        const bool kept = (words[column % 4][0] >> 8) >= of_row.threshold;
        v[k] = before[k] + (kept ? v[k] * of_row.scale : 0.0F);
      }
      Store<kWidth>(out, i, v);
    });
  }
};

}  // namespace mft::cuda
