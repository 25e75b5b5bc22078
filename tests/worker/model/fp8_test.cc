// SPDX-License-Identifier: Apache-2.0
// A model whose frozen base is in fp8: near bf16 in a step, the same bits whoever quantises, and
// near bf16 in the losses of a whole fine-tuning (fp8_losses_test.cc).
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/emulated_device.h"
#include "tests/worker/model/cosine.h"
#include "tests/worker/model/device_kernels.h"
#include "tests/worker/model/random_weights.h"
#include "worker/model/device_weights.h"
#include "worker/model/kernel_profile.h"
#include "worker/model/lora_store.h"
#include "worker/model/transformer.h"

namespace mft {
namespace {

using testing::Cosine;
using testing::DeviceKernels;

const ModelParams kParams{.dim = 256,
                          .n_layers = 2,
                          .head_dim = 64,
                          .hidden_dim = 384,
                          .n_heads = 4,
                          .n_kv_heads = 2,
                          .norm_eps = 1e-5,
                          .vocab_size = 512,
                          .rope_theta = 10000};

// 75 rows, no multiple of 16, in two documents.
struct Documents {
  Documents() {
    for (int32_t i = 0; i < 75; ++i) {
      tokens.push_back(i * 37 % 512);
    }
  }
  Rows rows() const { return {tokens, tokens, weight, cu_seqlens}; }
  std::vector<int32_t> tokens;
  std::vector<float> weight = std::vector<float>(75, 1.0F / 75);
  std::vector<int32_t> cu_seqlens = {0, 32, 75};
};

struct Step {
  double loss = 0;
  std::vector<float> gradient;
};

// Of a model with an adapter on most of its projections.
Step StepOf(const KernelTable& kernels, bool quantise, TransformerOptions options) {
  const DeviceModel device_model{kParams, kernels, quantise};
  const auto weights = MakeDeviceWeights(device_model, FillWithRandom(device_model));
  LoraStore store(
      kParams, {.rank = 8, .target_modules = {"wq", "wv", "wo", "w1", "w2"}, .kernels = &kernels});
  testing::Noise(7).Fill(store.master(), 0.1F);
  store.Upload();
  options.max_rows = 75;
  options.max_positions = 45;
  Transformer model(*weights, store, kernels, options);
  const Documents documents;
  Step step;
  step.loss = model.ForwardBackward(documents.rows());
  step.gradient.resize(store.grad().size());
  kernels.memory->download(
      step.gradient.data(), store.grad().data(), step.gradient.size() * sizeof(float));
  return step;
}

// Products round to 3 bits of mantissa, everything else is that of bf16.
TEST(DeviceFp8, StaysNearBf16) {
  const KernelTable& kernels = DeviceKernels(true);
  if (!CanQuantise(kParams, kernels).ok()) {
    GTEST_SKIP() << CanQuantise(kParams, kernels).message();
  }
  const TransformerOptions options{.policy = RecomputePolicy::kNothing, .sizes = GpuSizes(75)};
  const Step bf16 = StepOf(kernels, false, options);
  const Step fp8 = StepOf(kernels, true, options);
  EXPECT_NE(fp8.loss, bf16.loss);
  EXPECT_NEAR(fp8.loss / bf16.loss, 1, 2e-2);
  EXPECT_GE(Cosine(fp8.gradient, bf16.gradient), 0.98);
}

// The emulated table with some functions replaced. Those of a table carry no state.
int64_t g_passes = 0;
int64_t g_products = 0;

KernelTable Counting() {
  KernelTable table = testing::EmulatedKernels(true);
  table.quantise_rows = [](const Activation& x) {
    ++g_passes;
    testing::EmulatedKernels(true).quantise_rows(x);
  };
  table.gemm_quantised =
      [](View y, const QuantisedRows& x, const QuantisedMat& w, bool transpose_w, float beta) {
        ++g_products;
        testing::EmulatedKernels(true).gemm_quantised(y, x, w, transpose_w, beta);
      };
  return table;
}

// Kernels write rows alone; a pass of its own quantises each.
template <auto kMember>
struct Separate;
template <typename First, typename... Args, void (*KernelTable::*kMember)(First, Args...)>
struct Separate<kMember> {
  static void Run(First x, Args... args) {
    (testing::EmulatedKernels(true).*kMember)(x.view, args...);
    if (x.quantised.present()) {
      testing::EmulatedKernels(true).quantise_rows(x);
    }
  }
};

KernelTable QuantisingSeparately() {
  KernelTable table = testing::EmulatedKernels(true);
  table.rms_norm = Separate<&KernelTable::rms_norm>::Run;
  table.rms_norm_backward = Separate<&KernelTable::rms_norm_backward>::Run;
  table.rotary = Separate<&KernelTable::rotary>::Run;
  table.swiglu = Separate<&KernelTable::swiglu>::Run;
  table.swiglu_backward = [](View d_act, const Activation& gate, const Activation& up) {
    testing::EmulatedKernels(true).swiglu_backward(d_act, gate.view, up.view);
    for (const Activation* x : {&gate, &up}) {
      if (x->quantised.present()) {
        testing::EmulatedKernels(true).quantise_rows(*x);
      }
    }
  };
  return table;
}

// Whole, and in tiles of 32 and 48 rows whose MLPs take 16 at a time: parts of the gradient's rows
// are no operands.
const std::vector<ExecutionSizes> kSizes = {GpuSizes(75), {75, 48, 16, 75, true}};

TEST(DeviceFp8, GivesTheSameBitsWhereEveryOperandIsQuantisedByAPassOfItsOwn) {
  static const KernelTable separate = QuantisingSeparately();
  std::vector<Step> steps;
  for (const ExecutionSizes& sizes : kSizes) {
    for (const RecomputePolicy policy :
         {RecomputePolicy::kNothing, RecomputePolicy::kMlp, RecomputePolicy::kBlock}) {
      const TransformerOptions options{.policy = policy, .sizes = sizes};
      const Step fused = StepOf(testing::EmulatedKernels(true), true, options);
      const Step expected = StepOf(separate, true, options);
      EXPECT_EQ(fused.loss, expected.loss) << static_cast<int>(policy);
      EXPECT_EQ(fused.gradient, expected.gradient) << static_cast<int>(policy);
      steps.push_back(fused);
    }
  }
  // Whatever the sizes, but for the order of sums over rows.
  for (const Step& step : steps) {
    EXPECT_EQ(step.loss, steps[0].loss);
    EXPECT_GE(Cosine(step.gradient, steps[0].gradient), 0.9999);
  }
}

// A product's operand comes from the kernel that wrote it, and w1 and w3, or wq, wk and wv, share
// theirs: what is left are attention's output and the gradient of v, which are LibTorch's, and
// where the backward pass begins.
TEST(DeviceFp8, QuantisesByAPassOfItsOwnOnlyWhatOthersWrote) {
  static const KernelTable counting = Counting();
  g_passes = 0;
  g_products = 0;
  StepOf(counting, true, {.policy = RecomputePolicy::kNothing, .sizes = GpuSizes(75)});
  // Nothing is trained below the first block: its wq, wk and wv have no backward product.
  EXPECT_EQ(g_products, 2 * 7 + 7 + 4);
  EXPECT_EQ(g_passes, 2 + 1 + 1);
}

TEST(DeviceFp8, IsProfiledUnderTheNamesOfItsWeights) {
  const KernelTable& kernels = testing::EmulatedKernels(true);
  const DeviceModel device_model{kParams, kernels, true};
  const auto weights = MakeDeviceWeights(device_model, FillWithRandom(device_model));
  const LoraStore store(kParams, {.rank = 8, .target_modules = {"wq"}, .kernels = &kernels});
  KernelProfile profile(kernels, *weights);
  Transformer model(*weights,
                    store,
                    profile.kernels(),
                    {.policy = RecomputePolicy::kNothing,
                     .max_rows = 75,
                     .max_positions = 45,
                     .sizes = GpuSizes(75)});
  const Documents documents;
  model.ForwardBackward(documents.rows());
  std::map<std::string, OperationTime> operations;
  for (const OperationTime& operation : profile.Operations()) {
    operations[operation.name] = operation;
  }
  EXPECT_EQ(operations["w1 forward"].calls, 2);
  EXPECT_EQ(operations["w1 backward"].calls, 2);
  EXPECT_EQ(operations["wk backward"].calls, 1);
  EXPECT_EQ(operations["w1 backward"].flops, 2 * 2 * 80.0 * 256 * 384);
  EXPECT_EQ(operations["quantise"].calls, 4);
}

}  // namespace
}  // namespace mft
