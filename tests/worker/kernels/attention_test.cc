// SPDX-License-Identifier: Apache-2.0
// Blocked attention against the plain formula in double. Letters: H query heads, K key heads, E
// head width, Q and J rows of queries and of keys.
#include <omp.h>

#include <gtest/gtest.h>

#include "tests/worker/kernels/testing.h"

namespace mft {
namespace {

using testing::Doubles;
using testing::NormalFloats;
using testing::RelativeError;

struct Shape {
  int64_t heads, kv_heads, head_dim;
  std::vector<int32_t> cu_q;
  std::vector<int32_t> cu_k;
};

AttentionShape ShapeOf(const Shape& shape) {
  return {.heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim,
          .cu_q = shape.cu_q,
          .cu_k = shape.cu_k};
}

struct Inputs {
  explicit Inputs(const Shape& shape)
      : q_rows(shape.cu_q.back()),
        k_rows(shape.cu_k.back()),
        q_cols(shape.heads * shape.head_dim),
        k_cols(shape.kv_heads * shape.head_dim),
        q(NormalFloats(q_rows * q_cols, 1)),
        k(NormalFloats(k_rows * k_cols, 2)),
        v(NormalFloats(k_rows * k_cols, 3)),
        d_out(NormalFloats(q_rows * q_cols, 4)) {}
  int64_t q_rows, k_rows, q_cols, k_cols;
  std::vector<float> q, k, v, d_out;
  View Q() { return MatrixView(q.data(), q_rows, q_cols); }
  View K() { return MatrixView(k.data(), k_rows, k_cols); }
  View V() { return MatrixView(v.data(), k_rows, k_cols); }
};

struct Outputs {
  std::vector<double> out, lse, dq, dk, dv;
};

// One query row of one head: `keys` of the segment starting at row `first` are visible.
struct OneRow {
  int64_t query, head, first, keys;
};

void ReferenceRow(const Shape& shape, const Inputs& in, const OneRow& row, Outputs& to) {
  const auto e = static_cast<size_t>(shape.head_dim);
  const auto kv_head = static_cast<size_t>(row.head / (shape.heads / shape.kv_heads));
  const auto query = static_cast<size_t>(row.query * in.q_cols + row.head * shape.head_dim);
  const auto key = [&](int64_t j) {
    return static_cast<size_t>((row.first + j) * in.k_cols) + kv_head * e;
  };
  const double scale = 1 / std::sqrt(static_cast<double>(e));
  std::vector<double> p(static_cast<size_t>(row.keys));
  double sum = 0;
  for (int64_t j = 0; j < row.keys; ++j) {
    double score = 0;
    for (size_t c = 0; c < e; ++c) {
      score += double{in.q[query + c]} * in.k[key(j) + c];
    }
    p[static_cast<size_t>(j)] = std::exp(scale * score);
    sum += p[static_cast<size_t>(j)];
  }
  to.lse[static_cast<size_t>(row.query * shape.heads + row.head)] = std::log(sum);
  std::vector<double> d_p(p.size());
  double delta = 0;
  for (int64_t j = 0; j < row.keys; ++j) {
    const auto at = static_cast<size_t>(j);
    p[at] /= sum;
    for (size_t c = 0; c < e; ++c) {
      to.out[query + c] += p[at] * in.v[key(j) + c];
      to.dv[key(j) + c] += p[at] * in.d_out[query + c];
      d_p[at] += double{in.d_out[query + c]} * in.v[key(j) + c];
    }
    delta += p[at] * d_p[at];
  }
  for (int64_t j = 0; j < row.keys; ++j) {
    const double d_score =
        scale * p[static_cast<size_t>(j)] * (d_p[static_cast<size_t>(j)] - delta);
    for (size_t c = 0; c < e; ++c) {
      to.dq[query + c] += d_score * in.k[key(j) + c];
      to.dk[key(j) + c] += d_score * in.q[query + c];
    }
  }
}

Outputs Reference(const Shape& shape, const Inputs& in) {
  Outputs to{std::vector<double>(in.q.size()),
             std::vector<double>(static_cast<size_t>(in.q_rows * shape.heads)),
             std::vector<double>(in.q.size()),
             std::vector<double>(in.k.size()),
             std::vector<double>(in.k.size())};
  for (size_t s = 0; s + 1 < shape.cu_q.size(); ++s) {
    const int64_t queries = shape.cu_q[s + 1] - shape.cu_q[s];
    const int64_t keys = shape.cu_k[s + 1] - shape.cu_k[s];
    for (int64_t i = 0; i < queries; ++i) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        ReferenceRow(
            shape, in, {shape.cu_q[s] + i, head, shape.cu_k[s], keys - queries + i + 1}, to);
      }
    }
  }
  return to;
}

struct Results {
  std::vector<float> out, lse, dq, dk, dv;
  bool operator==(const Results&) const = default;
};

Results RunKernels(const KernelTable& kernels, const Shape& shape, Inputs& in, bool backward) {
  // Outputs are written, not added to: what was there must not matter.
  const auto garbage = [](size_t size) { return std::vector<float>(size, 77.0F); };
  Results run{garbage(in.q.size()),
              garbage(static_cast<size_t>(in.q_rows * shape.heads)),
              garbage(in.q.size()),
              garbage(in.k.size()),
              garbage(in.k.size())};
  const View out = MatrixView(run.out.data(), in.q_rows, in.q_cols);
  const View lse = MatrixView(run.lse.data(), in.q_rows, shape.heads);
  kernels.attention(out, lse, in.Q(), in.K(), in.V(), ShapeOf(shape));
  if (backward) {
    kernels.attention_backward({.dq = MatrixView(run.dq.data(), in.q_rows, in.q_cols),
                                .dk = MatrixView(run.dk.data(), in.k_rows, in.k_cols),
                                .dv = MatrixView(run.dv.data(), in.k_rows, in.k_cols),
                                .d_out = MatrixView(in.d_out.data(), in.q_rows, in.q_cols),
                                .out = out,
                                .lse = lse,
                                .q = in.Q(),
                                .k = in.K(),
                                .v = in.V()},
                               ShapeOf(shape));
  }
  return run;
}

class Attention : public ::testing::TestWithParam<std::string> {
 protected:
  const KernelTable& kernels() const { return testing::KernelsNamed(GetParam()); }
};

const std::vector<int32_t> kPacked = {0, 1, 8, 136, 265, 600};

TEST_P(Attention, ForwardAndBackwardOfPackedDocuments) {
  const std::vector<Shape> shapes = {
      {4, 2, 16, kPacked, kPacked},           // grouped heads
      {3, 1, 24, {0, 40, 41}, {0, 40, 41}},   // width no multiple of a vector
      {2, 2, 64, {0, 300}, {0, 300}},         // a group of one
      {8, 2, 6, {0, 3, 3, 5}, {0, 3, 3, 5}},  // narrow heads, an empty segment
  };
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(::testing::Message() << shape.heads << " heads of " << shape.head_dim);
    Inputs in(shape);
    const Outputs expected = Reference(shape, in);
    const Results run = RunKernels(kernels(), shape, in, true);
    EXPECT_LT(RelativeError(run.out, expected.out), 5e-6);
    EXPECT_LT(RelativeError(run.lse, expected.lse), 5e-6);
    EXPECT_LT(RelativeError(run.dq, expected.dq), 1e-5);
    EXPECT_LT(RelativeError(run.dk, expected.dk), 1e-5);
    EXPECT_LT(RelativeError(run.dv, expected.dv), 1e-5);
  }
}

TEST_P(Attention, QueriesAreTheLastRowsOfACache) {
  for (const auto& [queries, keys] : {std::pair{1, 1}, {1, 300}, {5, 300}, {200, 513}}) {
    SCOPED_TRACE(::testing::Message() << queries << " queries, " << keys << " keys");
    const Shape shape{4, 2, 16, {0, queries}, {0, keys}};
    Inputs in(shape);
    const Results run = RunKernels(kernels(), shape, in, false);
    EXPECT_LT(RelativeError(run.out, Reference(shape, in).out), 5e-6);
  }
}

TEST_P(Attention, SurvivesScoresOfAnySize) {
  const Shape shape{1, 1, 16, {0, 300}, {0, 300}};
  Inputs in(shape);
  for (float& q : in.q) {
    q *= 1000;
  }
  const Results run = RunKernels(kernels(), shape, in, true);
  const auto finite = [](const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
  };
  EXPECT_TRUE(finite(run.out) && finite(run.dq) && finite(run.dk) && finite(run.dv));
}

TEST_P(Attention, GivesTheSameBitsWithAnyNumberOfThreads) {
  const Shape shape{4, 2, 16, kPacked, kPacked};
  Inputs in(shape);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Results one = RunKernels(kernels(), shape, in, true);
  omp_set_num_threads(3);
  const Results three = RunKernels(kernels(), shape, in, true);
  omp_set_num_threads(threads);
  EXPECT_EQ(one, three);
}

INSTANTIATE_TEST_SUITE_P(Cpu,
                         Attention,
                         ::testing::ValuesIn(testing::RowSets()),
                         testing::TestName);

}  // namespace
}  // namespace mft
