// SPDX-License-Identifier: Apache-2.0
// Products of every table of this machine against double. Letters: y [M, N], depth K.
#include <omp.h>

#include <bit>
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "tests/worker/kernels/testing.h"

namespace mft {
namespace {

using testing::NormalFloats;

struct Shape {
  int64_t m, n, k;
};

uint16_t UpperHalf(float value) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
}

float OfBf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Operands that bf16 holds exactly, with gaps between their rows.
struct Problem {
  Problem(const Shape& shape, KernelTable::Gemm gemm)
      : options(gemm),
        a_rows(gemm.transpose_a ? shape.k : shape.m),
        a_cols(gemm.transpose_a ? shape.m : shape.k),
        b_rows(gemm.transpose_b ? shape.n : shape.k),
        b_cols(gemm.transpose_b ? shape.k : shape.n),
        a(Bf16Floats(a_rows * (a_cols + 3), 1)),
        b(Bf16Floats(b_rows * (b_cols + 5), 2)),
        y(gemm.beta == 0 ? std::vector<float>(static_cast<size_t>(shape.m * (shape.n + 7)), NAN)
                         : NormalFloats(shape.m * (shape.n + 7), 3)),
        m(shape.m),
        n(shape.n),
        k(shape.k) {}

  static std::vector<float> Bf16Floats(int64_t count, uint32_t seed) {
    std::vector<float> values = NormalFloats(count, seed);
    for (float& value : values) {
      value = OfBf16(UpperHalf(value));
    }
    return values;
  }

  View A() { return {a.data(), a_rows, a_cols, a_cols + 3, ElementType::kF32}; }
  View B() { return {b.data(), b_rows, b_cols, b_cols + 5, ElementType::kF32}; }
  View Y() { return {y.data(), m, n, n + 7, ElementType::kF32}; }

  // Largest difference to the sums in double, relative to the sum of magnitudes.
  double Error(const std::vector<float>& before) {
    double worst = 0;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        double magnitude = 1e-30;
        for (int64_t p = 0; p < k; ++p) {
          const double term =
              static_cast<double>(options.transpose_a ? A().row(p)[i] : A().row(i)[p]) *
              (options.transpose_b ? B().row(j)[p] : B().row(p)[j]);
          sum += term;
          magnitude += std::abs(term);
        }
        double expected = options.alpha * sum;
        magnitude *= std::abs(options.alpha);
        if (options.beta != 0) {
          const double start = before[static_cast<size_t>(i * (n + 7) + j)];
          expected += options.beta * start;
          magnitude += std::abs(start);
        }
        const double error = std::abs(Y().row(i)[j] - expected) / magnitude;
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      }
    }
    return worst;
  }

  KernelTable::Gemm options;
  int64_t a_rows, a_cols, b_rows, b_cols;
  std::vector<float> a, b, y;
  int64_t m, n, k;
};

class Gemm : public ::testing::TestWithParam<std::string> {
 protected:
  const KernelTable& kernels() const { return *CpuKernelsFor(GetParam()); }
  bool IsOurOwn() const {
    return GetParam() == "avx512" || GetParam() == "avx512-bf16" || GetParam() == "avx512-amx-bf16";
  }
};

const std::vector<KernelTable::Gemm> kOptions = {
    {},
    {.transpose_b = true},
    {.transpose_a = true, .beta = 1},
    {.transpose_a = true, .transpose_b = true, .alpha = 2, .beta = 0.5F},
    {.alpha = -0.5F, .beta = 1}};

TEST_P(Gemm, IsTheSumOfProductsForEveryShapeAndOption) {
  // Below, at and above each size of a block; a vector, a column, an outer product.
  const std::vector<Shape> shapes = {{1, 1, 1},
                                     {1, 70, 33},
                                     {5, 1, 300},
                                     {14, 32, 256},
                                     {15, 33, 257},
                                     {29, 48, 17},
                                     {3, 96, 16},
                                     {70, 16, 513},
                                     {13, 2049, 5},
                                     {16, 40, 1027},
                                     {32, 32, 512},
                                     {33, 17, 31},
                                     {65, 65, 545}};
  for (const Shape& shape : shapes) {
    for (const KernelTable::Gemm& options : kOptions) {
      Problem problem(shape, options);
      const std::vector<float> before = problem.y;
      kernels().gemm(problem.Y(), problem.A(), problem.B(), options);
      EXPECT_LT(problem.Error(before), 5e-7)
          << shape.m << " " << shape.n << " " << shape.k << " " << options.transpose_a
          << options.transpose_b << options.beta;
      // The gaps are not touched.
      for (int64_t i = 0; i < shape.m; ++i) {
        for (int64_t j = shape.n; j < shape.n + 7; ++j) {
          const auto at = static_cast<size_t>(i * (shape.n + 7) + j);
          ASSERT_EQ(std::isnan(before[at]), std::isnan(problem.y[at]));
          ASSERT_TRUE(std::isnan(before[at]) || before[at] == problem.y[at]);
        }
      }
    }
  }
}

TEST_P(Gemm, OfNothingIsBetaTimesY) {
  std::vector<float> y = {1, 2};
  kernels().gemm(
      MatrixView(y.data(), 0, 2), MatrixView(y.data(), 0, 3), MatrixView(y.data(), 3, 2), {});
  EXPECT_EQ(y, (std::vector<float>{1, 2}));
}

TEST_P(Gemm, GivesTheSameBitsAgain) {
  for (const KernelTable::Gemm& options : kOptions) {
    Problem problem({200, 300, 400}, options);
    const std::vector<float> before = problem.y;
    kernels().gemm(problem.Y(), problem.A(), problem.B(), options);
    const std::vector<float> first = problem.y;
    problem.y = before;
    kernels().gemm(problem.Y(), problem.A(), problem.B(), options);
    EXPECT_EQ(std::memcmp(first.data(), problem.y.data(), first.size() * sizeof(float)), 0);
  }
}

// Buffers are kept from call to call, and edges are padded: with zeros, not with what was there.
TEST_P(Gemm, DoesNotSeeWhatAnEarlierProductLeft) {
  for (const KernelTable::Gemm& options : kOptions) {
    Problem infinite({40, 70, 600}, options);
    std::fill(infinite.a.begin(), infinite.a.end(), INFINITY);
    std::fill(infinite.b.begin(), infinite.b.end(), INFINITY);
    kernels().gemm(infinite.Y(), infinite.A(), infinite.B(), options);
    for (const Shape& shape : {Shape{5, 3, 1}, Shape{17, 33, 35}, Shape{40, 70, 530}}) {
      Problem problem(shape, options);
      const std::vector<float> before = problem.y;
      kernels().gemm(problem.Y(), problem.A(), problem.B(), options);
      EXPECT_LT(problem.Error(before), 5e-7) << shape.m << " " << shape.n << " " << shape.k;
    }
  }
}

// b in bf16 is b in fp32: the bits are the same where the product is our own.
TEST_P(Gemm, OfBf16IsThatOfItsElementsWidened) {
  const std::vector<Shape> shapes = {{1, 1, 1},
                                     {1, 70, 33},
                                     {2, 1200, 700},
                                     {14, 32, 256},
                                     {29, 49, 17},
                                     {70, 17, 513},
                                     {13, 2049, 5},
                                     {16, 40, 1027}};
  for (const Shape& shape : shapes) {
    for (const KernelTable::Gemm& options : kOptions) {
      Problem narrow(shape, options);
      std::vector<uint16_t> bits;
      for (const float value : narrow.b) {
        bits.push_back(UpperHalf(value));
      }
      Problem wide = narrow;
      const std::vector<float> before = narrow.y;
      View b = narrow.B();
      b.data = bits.data();
      b.type = ElementType::kBF16;
      kernels().gemm(narrow.Y(), narrow.A(), b, options);
      EXPECT_LT(narrow.Error(before), 5e-7) << shape.m << " " << shape.n << " " << shape.k;
      if (IsOurOwn() && shape.m > 3) {
        kernels().gemm(wide.Y(), wide.A(), wide.B(), options);
        EXPECT_EQ(std::memcmp(wide.y.data(), narrow.y.data(), wide.y.size() * sizeof(float)), 0);
      }
    }
  }
}

TEST_P(Gemm, OfBf16WithoutDepthIsBetaTimesY) {
  std::vector<float> y = {1, 2};
  float unused = 0;
  uint16_t none = 0;
  const View b{&none, 0, 2, 2, ElementType::kBF16};
  kernels().gemm(MatrixView(y.data(), 1, 2), MatrixView(&unused, 1, 0), b, {.beta = 2});
  EXPECT_EQ(y, (std::vector<float>{2, 4}));
}

TEST_P(Gemm, RowsOfBf16AreWidened) {
  const std::vector<uint16_t> table = {0x3F80, 0xC000, 0x7F80, 0x0001, 0x4049, 0xFFC0};
  const std::vector<int32_t> index = {2, 0};
  std::vector<float> y(4);
  kernels().gather_rows(MatrixView(y.data(), 2, 2),
                        {const_cast<uint16_t*>(table.data()), 3, 2, 2, ElementType::kBF16},
                        index.data());
  EXPECT_EQ(y[0], 3.140625F);
  EXPECT_TRUE(std::isnan(y[1]));
  EXPECT_EQ(y[2], 1.0F);
  EXPECT_EQ(y[3], -2.0F);
}

INSTANTIATE_TEST_SUITE_P(Cpu, Gemm, ::testing::ValuesIn(testing::ProductSets()), testing::TestName);

uint16_t RoundedToEven(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

class Bf16Gemm : public ::testing::TestWithParam<std::string> {};

// Every layout of an operand of a product for bf16, with values halfway between two of bf16.
TEST_P(Bf16Gemm, RoundsOperandsToNearestTiesToEven) {
  const KernelTable* kernels = CpuKernelsFor(GetParam());
  if (kernels == nullptr) {
    GTEST_SKIP() << "no " << GetParam() << " here";
  }
  for (const KernelTable::Gemm& options : kOptions) {
    Problem exact({29, 49, 77}, options);
    Problem rounded = exact;
    for (std::vector<float>* values : {&exact.a, &exact.b}) {
      for (size_t i = 0; i < values->size(); ++i) {
        const uint32_t tail = i % 3 == 0 ? 0x8000 : static_cast<uint32_t>(i * 40503) & 0xFFFF;
        float& value = (*values)[i];
        value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) | tail);
        (values == &exact.a ? rounded.a : rounded.b)[i] = OfBf16(RoundedToEven(value));
      }
    }
    kernels->gemm(exact.Y(), exact.A(), exact.B(), options);
    kernels->gemm(rounded.Y(), rounded.A(), rounded.B(), options);
    EXPECT_EQ(std::memcmp(exact.y.data(), rounded.y.data(), exact.y.size() * sizeof(float)), 0);
    EXPECT_NE(exact.a, rounded.a);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu,
                         Bf16Gemm,
                         ::testing::Values("avx512-bf16", "avx512-amx-bf16"),
                         testing::TestName);

class BlockedGemm : public ::testing::TestWithParam<std::string> {};

TEST_P(BlockedGemm, GivesTheSameBitsWithAnyNumberOfThreads) {
  const KernelTable* kernels = CpuKernelsFor(GetParam());
  if (kernels == nullptr) {
    GTEST_SKIP() << "no " << GetParam() << " here";
  }
  const int threads = omp_get_max_threads();
  for (const KernelTable::Gemm& options : kOptions) {
    std::vector<std::vector<float>> results;
    for (const int count : {1, 2, 5}) {
      omp_set_num_threads(count);
      Problem problem({120, 190, 1100}, options);
      kernels->gemm(problem.Y(), problem.A(), problem.B(), options);
      results.push_back(problem.y);
    }
    const size_t bytes = results[0].size() * sizeof(float);
    EXPECT_EQ(std::memcmp(results[0].data(), results[1].data(), bytes), 0);
    EXPECT_EQ(std::memcmp(results[0].data(), results[2].data(), bytes), 0);
  }
  omp_set_num_threads(threads);
}

INSTANTIATE_TEST_SUITE_P(Cpu,
                         BlockedGemm,
                         ::testing::Values("avx512", "avx512-bf16", "avx512-amx-bf16"),
                         testing::TestName);

}  // namespace
}  // namespace mft
