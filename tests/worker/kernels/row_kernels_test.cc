// SPDX-License-Identifier: Apache-2.0
// Every row-wise function of the kernel table, for each instruction set of this machine, against
// the same body in double. Widths are odd on purpose: vector loops have remainders.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/kernels/testing.h"
#include "worker/kernels/elementwise.h"
#include "worker/kernels/softmax_row.h"

namespace mft {
namespace {

using testing::Doubles;
using testing::NormalFloats;
using testing::RelativeError;

constexpr int64_t kRows = 7;
constexpr int64_t kWidth = 131;
constexpr int64_t kStride = 140;  // rows of a view need not touch
constexpr float kEps = 1e-5F;
constexpr double kTolerance = 3e-6;

// A matrix with gaps between its rows; the gaps hold a marker that no kernel may touch.
class Gapped {
 public:
  explicit Gapped(uint32_t seed, float scale = 1)
      : Gapped(NormalFloats(kRows * kWidth, seed, scale)) {}
  explicit Gapped(const std::vector<float>& values) : data_(kRows * kStride, kMarker) {
    for (int64_t i = 0; i < kRows; ++i) {
      std::copy_n(values.begin() + i * kWidth, kWidth, data_.begin() + i * kStride);
    }
  }
  View view() { return {data_.data(), kRows, kWidth, kStride, ElementType::kF32}; }
  std::vector<float> values() const {
    std::vector<float> values;
    for (int64_t i = 0; i < kRows; ++i) {
      const auto row = data_.begin() + i * kStride;
      values.insert(values.end(), row, row + kWidth);
      EXPECT_EQ(std::count(row + kWidth, row + kStride, kMarker), kStride - kWidth);
    }
    return values;
  }
  std::vector<double> doubles() const { return Doubles(values()); }

 private:
  static constexpr float kMarker = 12345.0F;
  std::vector<float> data_;
};

class RowKernels : public ::testing::TestWithParam<std::string> {
 protected:
  const KernelTable& kernels() const { return testing::KernelsNamed(GetParam()); }
};

TEST_P(RowKernels, CarryVersionAndName) {
  EXPECT_EQ(kernels().version, kKernelTableVersion);
  EXPECT_EQ(kernels().name, GetParam() == "emulated" ? "emulated-fp32" : "cpu-" + GetParam());
}

TEST_P(RowKernels, RmsNorm) {
  Gapped x(1);
  Gapped y(2);
  const std::vector<float> weight = NormalFloats(kWidth, 3);
  kernels().rms_norm(y.view(), x.view(), weight.data(), kEps);
  const auto w = Doubles(weight);
  const auto from = x.doubles();
  std::vector<double> expected(from.size());
  for (int64_t i = 0; i < kRows; ++i) {
    elementwise::RmsNormRow(
        expected.data() + i * kWidth, from.data() + i * kWidth, w.data(), kWidth, double{kEps});
  }
  EXPECT_LT(RelativeError(y.values(), expected), kTolerance);
}

TEST_P(RowKernels, RmsNormBackward) {
  Gapped x(1);
  Gapped dy(2);
  Gapped dx(3);
  const std::vector<float> weight = NormalFloats(kWidth, 4);
  const auto w = Doubles(weight);
  auto expected = dx.doubles();
  for (int64_t i = 0; i < kRows; ++i) {
    elementwise::RmsNormBackwardRow(expected.data() + i * kWidth,
                                    dy.doubles().data() + i * kWidth,
                                    x.doubles().data() + i * kWidth,
                                    w.data(),
                                    kWidth,
                                    double{kEps});
  }
  kernels().rms_norm_backward(dx.view(), dy.view(), x.view(), weight.data(), kEps);
  EXPECT_LT(RelativeError(dx.values(), expected), kTolerance);
}

TEST_P(RowKernels, RotaryTurnsEachRowByItsPosition) {
  constexpr int64_t kHeadDim = 26;
  constexpr int64_t kHeads = 5;
  const std::vector<int32_t> position = {3, 0, 1, 9, 2, 2, 7};
  const std::vector<float> table = NormalFloats(10 * kHeadDim, 2);
  const auto table_d = Doubles(table);
  for (const bool backward : {false, true}) {
    Gapped x(1);
    auto expected = x.doubles();
    for (int64_t i = 0; i < kRows; ++i) {
      elementwise::RotaryRow(expected.data() + i * kWidth,
                             table_d.data() + position[static_cast<size_t>(i)] * kHeadDim,
                             kHeads,
                             kHeadDim,
                             backward ? -1.0 : 1.0);
    }
    View heads = x.view();
    heads.cols = kHeads * kHeadDim;
    kernels().rotary(heads, position.data(), table.data(), kHeadDim, backward);
    EXPECT_LT(RelativeError(x.values(), expected), kTolerance);
  }
}

TEST_P(RowKernels, SwigluAndItsBackward) {
  Gapped gate(1, 4);
  Gapped up(2);
  Gapped act(3);
  kernels().swiglu(act.view(), gate.view(), up.view());
  std::vector<double> expected(kRows * kWidth);
  auto g = gate.doubles();
  auto u = up.doubles();
  elementwise::SwigluRow(expected.data(), g.data(), u.data(), kRows * kWidth);
  EXPECT_LT(RelativeError(act.values(), expected), kTolerance);

  Gapped d_act(4);
  auto d = d_act.doubles();
  elementwise::SwigluBackwardRow(d.data(), g.data(), u.data(), kRows * kWidth);
  kernels().swiglu_backward(d_act.view(), gate.view(), up.view());
  EXPECT_LT(RelativeError(d_act.values(), d), kTolerance);
  EXPECT_LT(RelativeError(gate.values(), g), kTolerance);
  EXPECT_LT(RelativeError(up.values(), u), kTolerance);
}

TEST_P(RowKernels, CrossEntropyFoldsBlocksAndScalesTheSumsOfThoseBefore) {
  Gapped logits(1, 5);
  Gapped sums(2);
  const std::vector<int32_t> target = {0, 130, 7, 64, 1, 99, 3};
  const std::vector<float> weight = {0.5F, 1.0F, 0.0F, 0.25F, 2.0F, 1e-4F, 1.0F};
  constexpr int64_t kSplit = 60;
  auto expected = logits.doubles();
  auto expected_sums = sums.doubles();
  double expected_loss = 0;
  std::vector<double> exp_factors;
  std::vector<double> target_factors;
  for (int64_t i = 0; i < kRows; ++i) {
    const auto at = static_cast<size_t>(i);
    SoftmaxRow<double> row;
    double* columns = expected.data() + i * kWidth;
    elementwise::FoldSoftmaxRow(row, columns, kSplit, int64_t{target[at]}, true);
    elementwise::ScaleRow(expected_sums.data() + i * kWidth,
                          kWidth,
                          elementwise::FoldSoftmaxRow(
                              row, columns + kSplit, kWidth - kSplit, target[at] - kSplit, false));
    expected_loss += weight[at] * elementwise::CrossEntropyOf(row);
    exp_factors.push_back(weight[at] / row.sum);
    target_factors.push_back(weight[at] * elementwise::TargetGradientOf(row));
  }
  std::vector<SoftmaxState> state(kRows);
  const View view = logits.view();
  kernels().fold_softmax(state.data(), view.Cols(0, kSplit), 0, target.data(), View{});
  kernels().fold_softmax(
      state.data(), view.Cols(kSplit, kWidth - kSplit), kSplit, target.data(), sums.view());
  EXPECT_LT(RelativeError(logits.values(), expected), kTolerance);
  EXPECT_LT(RelativeError(sums.values(), expected_sums), kTolerance);
  std::vector<float> factors(2 * kRows);
  double loss = 0;
  kernels().cross_entropy(
      state.data(), kRows, weight.data(), factors.data(), factors.data() + kRows, &loss);
  EXPECT_NEAR(loss / expected_loss, 1, 1e-6);
  target_factors.insert(target_factors.begin(), exp_factors.begin(), exp_factors.end());
  EXPECT_LT(RelativeError(factors, target_factors), kTolerance);
}

TEST_P(RowKernels, GatherAndScatter) {
  Gapped table(1);
  Gapped y(2);
  const std::vector<int32_t> index = {6, 0, 3, 2, 5, 1, 4};
  kernels().gather_rows(y.view(), table.view(), index.data());
  const auto from = table.values();
  const auto to = y.values();
  for (int64_t i = 0; i < kRows; ++i) {
    EXPECT_EQ(to[static_cast<size_t>(i * kWidth)],
              from[static_cast<size_t>(index[static_cast<size_t>(i)] * kWidth)]);
  }
  Gapped sum(std::vector<float>(kRows * kWidth, 1.0F));
  kernels().scatter_add_rows(sum.view(), y.view(), index.data());
  for (size_t i = 0; i < from.size(); ++i) {
    ASSERT_EQ(sum.values()[i], 1.0F + from[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu,
                         RowKernels,
                         ::testing::ValuesIn(testing::RowSets()),
                         testing::TestName);

TEST(CpuKernels, TakesTheBestOfThisMachine) {
  const std::string best = testing::InstructionSets().front();
  EXPECT_THAT(CpuKernels().name, ::testing::StartsWith("cpu-" + best));
  EXPECT_EQ(CpuKernelsFor("sse9"), nullptr);
}

}  // namespace
}  // namespace mft
