// SPDX-License-Identifier: Apache-2.0
// Letters: Q, J rows of a block of queries and of keys; E head width.
#include "worker/kernels/attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace mft {

namespace {
constexpr int64_t kQueryBlock = 128;
constexpr int64_t kKeyBlock = 256;
constexpr float kNever = -INFINITY;

// One head of one segment.
struct Task {
  int64_t segment = 0;
  int64_t head = 0;
};

struct Rows {
  int64_t begin = 0;
  int64_t count = 0;
};

Rows SegmentRows(std::span<const int32_t> offsets, int64_t segment) {
  const auto s = static_cast<size_t>(segment);
  return {offsets[s], offsets[s + 1] - offsets[s]};
}

// Longest segments first: with few tasks the last one decides when all are done.
std::vector<Task> MakeTasks(const AttentionShape& shape, int64_t heads) {
  const auto segments = static_cast<int64_t>(shape.cu_q.size()) - 1;
  std::vector<Task> tasks;
  for (int64_t segment = 0; segment < segments; ++segment) {
    for (int64_t head = 0; head < heads; ++head) {
      tasks.push_back({segment, head});
    }
  }
  std::stable_sort(tasks.begin(), tasks.end(), [&](const Task& a, const Task& b) {
    return SegmentRows(shape.cu_k, a.segment).count > SegmentRows(shape.cu_k, b.segment).count;
  });
  return tasks;
}

float Scale(const AttentionShape& shape) {
  return 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
}

// The running softmax of one block of queries over the blocks of keys.
struct BlockState {
  std::vector<float> max, sum;
};

// Folds the scores [Q, J] of one block of keys into the running softmax and rescales what `out`
// holds so far. Query i sees the first visible + i keys of this block.
void SoftmaxBlock(const RowKernels& rows,
                  View scores,
                  View out,
                  BlockState& state,
                  float scale,
                  int64_t visible) {
  for (int64_t i = 0; i < scores.rows; ++i) {
    const auto at = static_cast<size_t>(i);
    const int64_t n = std::clamp<int64_t>(visible + i, 0, scores.cols);
    float* s = scores.row(i);
    if (n > 0) {
      const float max = std::max(state.max[at], scale * rows.max_of(s, n));
      if (state.max[at] != max && state.max[at] != kNever) {
        const float correction = std::exp(state.max[at] - max);
        state.sum[at] *= correction;
        rows.scale(out.row(i), out.cols, correction);
      }
      state.max[at] = max;
      state.sum[at] += rows.exp_row(s, n, scale, max);
    }
    std::fill(s + n, s + scores.cols, 0.0F);
  }
}

struct ForwardViews {
  View out, lse, q, k, v;
};

void ForwardTask(const AttentionParts& parts,
                 const ForwardViews& views,
                 const AttentionShape& shape,
                 Task task,
                 std::vector<float>& scratch) {
  const Rows queries = SegmentRows(shape.cu_q, task.segment);
  const Rows keys = SegmentRows(shape.cu_k, task.segment);
  const int64_t e = shape.head_dim;
  const int64_t kv_head = task.head / (shape.heads / shape.kv_heads);
  const View k = views.k.Cols(kv_head * e, e);
  const View v = views.v.Cols(kv_head * e, e);
  const float scale = Scale(shape);
  BlockState state;
  for (int64_t qb = 0; qb < queries.count; qb += kQueryBlock) {
    const int64_t q_count = std::min(kQueryBlock, queries.count - qb);
    const View q = views.q.Cols(task.head * e, e).Rows(queries.begin + qb, q_count);
    const View out = views.out.Cols(task.head * e, e).Rows(queries.begin + qb, q_count);
    state.max.assign(static_cast<size_t>(q_count), kNever);
    state.sum.assign(static_cast<size_t>(q_count), 0.0F);
    // The last query of the block sees the most keys.
    const int64_t first_visible = keys.count - queries.count + qb + 1;
    const int64_t last_visible = first_visible + q_count - 1;
    for (int64_t kb = 0; kb < last_visible; kb += kKeyBlock) {
      const int64_t k_count = std::min(kKeyBlock, last_visible - kb);
      const View scores = MatrixView(scratch.data(), q_count, k_count);
      parts.gemm(scores, q, k.Rows(keys.begin + kb, k_count), {.transpose_b = true});
      SoftmaxBlock(parts.rows, scores, out, state, scale, first_visible - kb);
      parts.gemm(out, scores, v.Rows(keys.begin + kb, k_count), {.beta = kb == 0 ? 0.0F : 1.0F});
    }
    for (int64_t i = 0; i < q_count; ++i) {
      const auto at = static_cast<size_t>(i);
      parts.rows.scale(out.row(i), e, 1.0F / state.sum[at]);
      views.lse.row(queries.begin + qb + i)[task.head] = state.max[at] + std::log(state.sum[at]);
    }
  }
}

struct BackwardScratch {
  std::vector<float> scores, d_p, delta;
};

// delta_i = sum of d_out_i * out_i: what softmax's backward subtracts.
void FillDelta(const RowKernels& rows,
               const KernelTable::AttentionGrad& g,
               Rows segment,
               int64_t column,
               int64_t e,
               std::vector<float>& delta) {
  delta.resize(static_cast<size_t>(segment.count));
  for (int64_t i = 0; i < segment.count; ++i) {
    delta[static_cast<size_t>(i)] =
        rows.dot(g.d_out.row(segment.begin + i) + column, g.out.row(segment.begin + i) + column, e);
  }
}

void Zero(View v) {
  for (int64_t i = 0; i < v.rows; ++i) {
    std::memset(v.row(i), 0, static_cast<size_t>(v.cols) * sizeof(float));
  }
}

// One query head of one segment; adds to dk and dv, which the heads of a group share.
void BackwardHead(const AttentionParts& parts,
                  const KernelTable::AttentionGrad& g,
                  const AttentionShape& shape,
                  Task task,
                  BackwardScratch& scratch) {
  const Rows segment = SegmentRows(shape.cu_q, task.segment);
  const int64_t e = shape.head_dim;
  const int64_t column = task.head * e;
  const int64_t kv_column = task.head / (shape.heads / shape.kv_heads) * e;
  const float scale = Scale(shape);
  FillDelta(parts.rows, g, segment, column, e, scratch.delta);
  for (int64_t kb = 0; kb < segment.count; kb += kKeyBlock) {
    const int64_t k_count = std::min(kKeyBlock, segment.count - kb);
    const View k = g.k.Cols(kv_column, e).Rows(segment.begin + kb, k_count);
    const View v = g.v.Cols(kv_column, e).Rows(segment.begin + kb, k_count);
    const View dk = g.dk.Cols(kv_column, e).Rows(segment.begin + kb, k_count);
    const View dv = g.dv.Cols(kv_column, e).Rows(segment.begin + kb, k_count);
    for (int64_t qb = kb / kQueryBlock * kQueryBlock; qb < segment.count; qb += kQueryBlock) {
      const int64_t q_count = std::min(kQueryBlock, segment.count - qb);
      const int64_t row = segment.begin + qb;
      const View q = g.q.Cols(column, e).Rows(row, q_count);
      const View d_out = g.d_out.Cols(column, e).Rows(row, q_count);
      const View p = MatrixView(scratch.scores.data(), q_count, k_count);
      const View d_s = MatrixView(scratch.d_p.data(), q_count, k_count);
      parts.gemm(p, q, k, {.transpose_b = true});
      parts.gemm(d_s, d_out, v, {.transpose_b = true});
      for (int64_t i = 0; i < q_count; ++i) {
        const int64_t n = std::clamp<int64_t>(qb + i + 1 - kb, 0, k_count);
        parts.rows.attention_backward(p.row(i),
                                      d_s.row(i),
                                      n,
                                      scale,
                                      g.lse.row(row + i)[task.head],
                                      scratch.delta[static_cast<size_t>(qb + i)]);
        std::fill(p.row(i) + n, p.row(i) + k_count, 0.0F);
        std::fill(d_s.row(i) + n, d_s.row(i) + k_count, 0.0F);
      }
      parts.gemm(dv, p, d_out, {.transpose_a = true, .beta = 1});
      parts.gemm(dk, d_s, q, {.transpose_a = true, .beta = 1});
      parts.gemm(g.dq.Cols(column, e).Rows(row, q_count), d_s, k, {.beta = 1});
    }
  }
}
}  // namespace

void AttentionCpu(const AttentionParts& parts,
                  View out,
                  View lse,
                  View q,
                  View k,
                  View v,
                  const AttentionShape& shape) {
  const std::vector<Task> tasks = MakeTasks(shape, shape.heads);
  const ForwardViews views{out, lse, q, k, v};
#pragma omp parallel
  {
    std::vector<float> scratch(static_cast<size_t>(kQueryBlock * kKeyBlock));
#pragma omp for schedule(dynamic, 1)
    for (size_t i = 0; i < tasks.size();
         ++i) {  // NOLINT(modernize-loop-convert): OpenMP needs the index
      ForwardTask(parts, views, shape, tasks[i], scratch);
    }
  }
}

void AttentionBackwardCpu(const AttentionParts& parts,
                          const KernelTable::AttentionGrad& grad,
                          const AttentionShape& shape) {
  // A task owns a key head with its group of query heads, so that no two threads add to the same
  // gradient.
  const std::vector<Task> tasks = MakeTasks(shape, shape.kv_heads);
  const int64_t group = shape.heads / shape.kv_heads;
  const int64_t e = shape.head_dim;
#pragma omp parallel
  {
    BackwardScratch scratch;
    scratch.scores.resize(static_cast<size_t>(kQueryBlock * kKeyBlock));
    scratch.d_p.resize(static_cast<size_t>(kQueryBlock * kKeyBlock));
#pragma omp for schedule(dynamic, 1)
    for (size_t i = 0; i < tasks.size();
         ++i) {  // NOLINT(modernize-loop-convert): OpenMP needs the index
      const Task task = tasks[i];
      const Rows segment = SegmentRows(shape.cu_q, task.segment);
      Zero(grad.dk.Cols(task.head * e, e).Rows(segment.begin, segment.count));
      Zero(grad.dv.Cols(task.head * e, e).Rows(segment.begin, segment.count));
      Zero(grad.dq.Cols(task.head * group * e, group * e).Rows(segment.begin, segment.count));
      for (int64_t h = 0; h < group; ++h) {
        BackwardHead(parts, grad, shape, {task.segment, task.head * group + h}, scratch);
      }
    }
  }
}

}  // namespace mft
