// SPDX-License-Identifier: Apache-2.0
// Attention without matrix instructions, a warp for each row and head: exact, deterministic, slow.
// It serves fp32 and head widths that the flash kernels do not take. Numbers are fp32; a row's keys
// are gone through with a running softmax, its elements live in the lanes' registers.
#pragma once

#include "worker/kernels/cuda/block_load.h"
#include "worker/kernels/elementwise.h"

namespace mft::cuda {

constexpr int kMaxHeadElements = 8;  // of a lane: head widths to 256
constexpr int64_t kMaxHeadDim = 32 * kMaxHeadElements;

struct AttentionSizes {
  int64_t heads, kv_heads, head_dim;
  const int32_t* cu_q;
  const int32_t* cu_k;
  int64_t segments;
  float scale;
};

// The segment of a row: the last that begins at or before it and is not empty.
MFT_DEVICE inline int64_t SegmentOf(const int32_t* cu, int64_t segments, int64_t row) {
  int64_t low = 0;
  int64_t high = segments;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (cu[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

template <typename T>
struct AttentionRow {
  Rows<T> out;
  float* lse;  // [T, H]
  Rows<T> q, k, v;
  AttentionSizes sizes;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    const int64_t row = index / sizes.heads;
    const int64_t head = index % sizes.heads;
    const int64_t e = sizes.head_dim;
    const int64_t kv = head / (sizes.heads / sizes.kv_heads) * e;
    const int64_t segment = SegmentOf(sizes.cu_q, sizes.segments, row);
    const int64_t first = sizes.cu_k[segment];
    const int64_t visible = sizes.cu_k[segment + 1] - (sizes.cu_q[segment + 1] - row) + 1 - first;
    const T* const q_row = q(row) + head * e;
    typename Block::template Lanes<kMaxHeadElements> sum;
    block.ForLanes(e, sum, [](int64_t, float& s) { s = 0; });
    float max = 0;
    float total = 0;
    for (int64_t j = 0; j < visible; ++j) {
      const T* const k_row = k(first + j) + kv;
      const T* const v_row = v(first + j) + kv;
      const float score = sizes.scale * block.Sum(e, [&](int64_t i) {
        return static_cast<float>(q_row[i]) * static_cast<float>(k_row[i]);
      });
      const float largest = j > 0 && max > score ? max : score;
      const float correction = j > 0 ? elementwise::Exp(max - largest) : 0.0F;
      const float p = elementwise::Exp(score - largest);
      max = largest;
      total = total * correction + p;
      block.ForLanes(e, sum, [&](int64_t i, float& s) {
        s = s * correction + p * static_cast<float>(v_row[i]);
      });
    }
    T* const out_row = out(row) + head * e;
    block.ForLanes(e, sum, [&](int64_t i, float& s) { out_row[i] = T(s / total); });
    block.Once([&] { lse[row * sizes.heads + head] = max + elementwise::Log(total); });
  }
};

// What both backward kernels read. REQUIRES cu_q equal to cu_k.
template <typename T>
struct AttentionGradRows {
  Rows<T> d_out, out, q, k, v;
  const float* lse;
  AttentionSizes sizes;

  // scale * p * (dp - delta) of query row i and key row j, and p.
  template <typename Block>
  MFT_DEVICE float ScoreGradient(
      Block& block, int64_t i, int64_t j, int64_t head, float delta, float& p) const {
    const int64_t e = sizes.head_dim;
    const int64_t kv = head / (sizes.heads / sizes.kv_heads) * e;
    const T* const q_row = q(i) + head * e;
    const T* const k_row = k(j) + kv;
    const T* const v_row = v(j) + kv;
    const T* const d_row = d_out(i) + head * e;
    const float score = block.Sum(
        e, [&](int64_t c) { return static_cast<float>(q_row[c]) * static_cast<float>(k_row[c]); });
    const float d_p = block.Sum(
        e, [&](int64_t c) { return static_cast<float>(d_row[c]) * static_cast<float>(v_row[c]); });
    p = elementwise::Exp(sizes.scale * score - lse[i * sizes.heads + head]);
    return sizes.scale * p * (d_p - delta);
  }

  template <typename Block>
  MFT_DEVICE float Delta(Block& block, int64_t i, int64_t head) const {
    const T* const d_row = d_out(i) + head * sizes.head_dim;
    const T* const out_row = out(i) + head * sizes.head_dim;
    return block.Sum(sizes.head_dim, [&](int64_t c) {
      return static_cast<float>(d_row[c]) * static_cast<float>(out_row[c]);
    });
  }
};

template <typename T>
struct AttentionQueryGradRow {
  AttentionGradRows<T> g;
  Rows<T> dq;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    const int64_t row = index / g.sizes.heads;
    const int64_t head = index % g.sizes.heads;
    const int64_t e = g.sizes.head_dim;
    const int64_t kv = head / (g.sizes.heads / g.sizes.kv_heads) * e;
    const int64_t first = g.sizes.cu_q[SegmentOf(g.sizes.cu_q, g.sizes.segments, row)];
    const float delta = g.Delta(block, row, head);
    typename Block::template Lanes<kMaxHeadElements> sum;
    block.ForLanes(e, sum, [](int64_t, float& s) { s = 0; });
    for (int64_t j = first; j <= row; ++j) {
      float p = 0;
      const float d_s = g.ScoreGradient(block, row, j, head, delta, p);
      const T* const k_row = g.k(j) + kv;
      block.ForLanes(e, sum, [&](int64_t c, float& s) { s += d_s * static_cast<float>(k_row[c]); });
    }
    T* const out_row = dq(row) + head * e;
    block.ForLanes(e, sum, [&](int64_t c, float& s) { out_row[c] = T(s); });
  }
};

// A key row and key head: sums over the query heads of its group and the queries that see it.
template <typename T>
struct AttentionKeyGradRow {
  AttentionGradRows<T> g;
  Rows<T> dk, dv;

  template <typename Block>
  MFT_DEVICE void operator()(Block& block, int64_t index) const {
    const int64_t row = index / g.sizes.kv_heads;
    const int64_t kv_head = index % g.sizes.kv_heads;
    const int64_t e = g.sizes.head_dim;
    const int64_t group = g.sizes.heads / g.sizes.kv_heads;
    const int64_t end = g.sizes.cu_q[SegmentOf(g.sizes.cu_q, g.sizes.segments, row) + 1];
    typename Block::template Lanes<kMaxHeadElements> dk_sum;
    typename Block::template Lanes<kMaxHeadElements> dv_sum;
    block.ForLanes(e, dk_sum, [](int64_t, float& s) { s = 0; });
    block.ForLanes(e, dv_sum, [](int64_t, float& s) { s = 0; });
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (int64_t i = row; i < end; ++i) {
        float p = 0;
        const float delta = g.Delta(block, i, head);
        const float d_s = g.ScoreGradient(block, i, row, head, delta, p);
        const T* const q_row = g.q(i) + head * e;
        const T* const d_row = g.d_out(i) + head * e;
        block.ForLanes(
            e, dk_sum, [&](int64_t c, float& s) { s += d_s * static_cast<float>(q_row[c]); });
        block.ForLanes(
            e, dv_sum, [&](int64_t c, float& s) { s += p * static_cast<float>(d_row[c]); });
      }
    }
    T* const dk_row = dk(row) + kv_head * e;
    T* const dv_row = dv(row) + kv_head * e;
    block.ForLanes(e, dk_sum, [&](int64_t c, float& s) { dk_row[c] = T(s); });
    block.ForLanes(e, dv_sum, [&](int64_t c, float& s) { dv_row[c] = T(s); });
  }
};

}  // namespace mft::cuda
