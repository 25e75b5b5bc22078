// SPDX-License-Identifier: Apache-2.0
// Element-wise kernels of attention's and the MLP's input and output: rotary, SwiGLU, dropout. A
// row a block; the bodies are elementwise.h's.
#pragma once

#include "worker/kernels/cuda/quantise_blocks.h"
#include "worker/kernels/dropout_row.h"
#include "worker/kernels/elementwise.h"

namespace mft::cuda {

// table [positions, E/2, (cos, sin)]; E is even, and a multiple of kWidth where that is not 1.
template <typename T, int kWidth>
struct RotaryRow {
  WrittenRows<T> x;
  const int32_t* position;
  const float* table;
  int64_t head_dim;
  float sign;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    T* const in = x.rows(row);
    const float* const angles = table + position[row] * head_dim;
    if constexpr (kWidth == 1) {
      block.ForEach(x.rows.cols / 2, [&](int64_t i) {
        const float* const angle = angles + i * 2 % head_dim;
        float a = in[2 * i];
        float b = in[2 * i + 1];
        elementwise::RotatePair(a, b, angle[0], sign * angle[1]);
        in[2 * i] = T(a);
        in[2 * i + 1] = T(b);
      });
    } else {
      const WrittenRows<T> to[] = {x};
      WriteRow<kWidth>(block, row, x.rows.cols / kWidth, to, [&](int64_t i, float(&v)[1][kWidth]) {
        const float* const angle = angles + i * kWidth % head_dim;
        Load<kWidth>(v[0], in, i);
        for (int k = 0; k < kWidth; k += 2) {
          elementwise::RotatePair(v[0][k], v[0][k + 1], angle[k], sign * angle[k + 1]);
        }
      });
    }
  }
};

template <typename T, int kWidth>
struct SwigluRow {
  WrittenRows<T> act;
  Rows<T> gate, up;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    const T* const gate_row = gate(row);
    const T* const up_row = up(row);
    const WrittenRows<T> to[] = {act};
    WriteRow<kWidth>(block, row, gate.cols / kWidth, to, [&](int64_t i, float(&v)[1][kWidth]) {
      float u[kWidth];
      Load<kWidth>(v[0], gate_row, i);
      Load<kWidth>(u, up_row, i);
      for (int k = 0; k < kWidth; ++k) {
        v[0][k] = elementwise::Swiglu(v[0][k], u[k]);
      }
    });
  }
};

// dot, if not null: of the row; then nothing is quantised.
template <typename T, int kWidth>
struct SwigluBackwardRow {
  Rows<T> d_act;
  WrittenRows<T> gate, up;
  float* dot;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t row) const {
    T* const d_row = d_act(row);
    T* const gate_row = gate.rows(row);
    T* const up_row = up.rows(row);
    // Leaves the gradients of gate and up in v and writes act; returns what dot is the sum of.
    const auto gradients = [&](int64_t i, float(&v)[2][kWidth]) {
      float d[kWidth];
      Load<kWidth>(d, d_row, i);
      Load<kWidth>(v[0], gate_row, i);
      Load<kWidth>(v[1], up_row, i);
      float sum = 0;
      for (int k = 0; k < kWidth; ++k) {
        sum += elementwise::SwigluBackward(d[k], v[0][k], v[1][k]);
      }
      Store<kWidth>(d_row, i, d);
      return sum;
    };
    const int64_t packs = d_act.cols / kWidth;
    if (dot == nullptr) {
      const WrittenRows<T> to[] = {gate, up};
      WriteRow<kWidth>(block, row, packs, to, gradients);
      return;
    }
    const float sum = block.Sum(packs, [&](int64_t i) {
      float v[2][kWidth];
      const float of_pack = gradients(i, v);
      Store<kWidth>(gate_row, i, v[0]);
      Store<kWidth>(up_row, i, v[1]);
      return of_pack;
    });
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
        // Of a vector the column begins at a multiple of 4; an index known to the compiler.
        const bool kept = (words[kWidth == 1 ? column % 4 : k % 4][0] >> 8) >= of_row.threshold;
        v[k] = before[k] + (kept ? v[k] * of_row.scale : 0.0F);
      }
      Store<kWidth>(out, i, v);
    });
  }
};

}  // namespace mft::cuda
