// SPDX-License-Identifier: Apache-2.0
#include "worker/train/attention_trial.h"

#include <gtest/gtest.h>

#include "tests/support/emulated_device.h"

namespace mft {
namespace {

const AttentionJob kJob = {
    .heads = 2, .kv_heads = 1, .head_dim = 8, .rows = 96, .document_rows = 40};

// Keys have no gradient.
void ForgetKeys(const KernelTable::AttentionGrad& grad, const AttentionShape& shape) {
  const KernelTable& kernels = testing::EmulatedKernels(true);
  kernels.attention_backward(grad, shape);
  kernels.zero(grad.dk);
}

KernelTable WithBackward(void (*backward)(const KernelTable::AttentionGrad&,
                                          const AttentionShape&)) {
  KernelTable table = testing::EmulatedKernels(true);
  table.attention_backward = backward;
  return table;
}

AttentionChoice Choose(const std::vector<NamedKernels>& backends) {
  const auto choice = ChooseAttention(AttentionCandidates(kJob, backends), {}, SystemClock());
  EXPECT_TRUE(choice.ok()) << choice.status().message();
  return choice.ok() ? *choice : AttentionChoice{};
}

TEST(AttentionTrial, BackendsThatAgreeAreMeasured) {
  const KernelTable& rows = testing::EmulatedKernels(true);
  const AttentionChoice choice =
      Choose({{"rows", true, &rows}, {"one", true, &rows}, {"two", true, &rows}});
  EXPECT_TRUE(choice.left_out.empty());
  ASSERT_EQ(choice.times.size(), 2U);
  EXPECT_GT(choice.times[0].seconds, 0);
  EXPECT_EQ(choice.name, choice.times[0].name);
}

TEST(AttentionTrial, OneWithAnotherGradientIsLeftOut) {
  const KernelTable& rows = testing::EmulatedKernels(true);
  const KernelTable wrong = WithBackward(ForgetKeys);
  const KernelTable idle =
      WithBackward([](const KernelTable::AttentionGrad&, const AttentionShape&) {});
  const AttentionChoice choice =
      Choose({{"rows", true, &rows}, {"wrong", true, &wrong}, {"idle", true, &idle}});
  EXPECT_EQ(choice.name, "rows");
  ASSERT_EQ(choice.left_out.size(), 2U);
  // out and dq are right.
  EXPECT_EQ(choice.left_out[0].substr(0, 31), "wrong: not as rows: output 2 di");
  EXPECT_EQ(choice.left_out[1].substr(0, 28), "idle: not as rows: output 1 ");
}

TEST(AttentionTrial, IsDescribed) {
  AttentionChoice choice = {.name = "cudnn", .times = {{"cudnn", 0.0012034}, {"flash", 0.0801}}};
  EXPECT_EQ(
      DescribeAttention(choice, kJob),
      "attention: cudnn, 1.203 ms for forward and backward pass of 96 rows in documents of 40; "
      "flash 80.100 ms");
  choice.times.clear();
  EXPECT_EQ(DescribeAttention(choice, kJob), "attention: cudnn, as the checkpoint says");
}

}  // namespace
}  // namespace mft
