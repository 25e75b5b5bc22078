// SPDX-License-Identifier: Apache-2.0
// How close a training step on the CPU comes to the machine's own matrix product: a step of LoRA
// over a small Mistral model, and at::mm right before and after it, repeated; medians. A step needs
// 4 N + 6 P FLOPs a token: the N frozen weights forward and backward, the P LoRA weights also for
// their gradient. Attention is not counted, so the figure is what a user gains from faster code.
//
//   worker_step_bench [--rounds N] [--threads N] [--policy nothing|mlp|block]
//                     [--kernels avx512|avx2|baseline] [--clock wall|cpu] [--experts N]
// --experts: a mixture of N, two for each token, each half as wide: as many FLOPs as the dense
// model.

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>

#include "tests/worker/model/random_weights.h"
#include "worker/model/kernel_profile.h"
#include "worker/model/transformer.h"
#include "worker/train/adamw.h"
#include "worker/train/grad_clip.h"

namespace mft {
namespace {

// Wall clock; with --clock cpu the processor time of the process, which a busy machine disturbs
// less (meaningful with one thread).
clockid_t g_clock = CLOCK_MONOTONIC;

double Now() {
  timespec now{};
  clock_gettime(g_clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Options {
  int rounds = 9;
  int threads = 2;
  RecomputePolicy policy = RecomputePolicy::kNothing;
  std::string kernels;
  int64_t experts = 0;
};

constexpr int64_t kRank = 16;
const std::vector<std::string> kModules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};
constexpr int64_t kSequences = 4;
constexpr int64_t kSeqLen = 512;
constexpr int64_t kTokens = kSequences * kSeqLen;

ModelParams BenchParams(int64_t experts) {
  ModelParams params;
  params.dim = 512;
  params.n_layers = 8;
  params.n_heads = 8;
  params.n_kv_heads = 4;
  params.head_dim = 64;
  params.hidden_dim = 1408;
  params.vocab_size = 32000;
  params.norm_eps = 1e-5;
  params.rope_theta = 1e4;
  if (experts > 0) {
    params.moe = MoeParams{.num_experts = experts, .num_experts_per_tok = 2};
    params.hidden_dim /= 2;
  }
  return params;
}

// 2048^3, the best of three products.
double MatmulFlopsPerSecond(const at::Tensor& a, const at::Tensor& b, at::Tensor& y) {
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const double begin = Now();
    at::mm_out(y, a, b);
    const auto flops = 2.0 * static_cast<double>(a.size(0) * a.size(1) * b.size(1));
    best = std::max(best, flops / (Now() - begin));
  }
  return best;
}

struct Bench {
  explicit Bench(const Options& options)
      : weights(BenchParams(options.experts)),
        profile(options.kernels.empty() ? CpuKernels() : *CpuKernelsFor(options.kernels), weights),
        store(weights.params(), {.rank = kRank, .target_modules = kModules}),
        model(weights,
              store,
              profile.kernels(),
              {.policy = options.policy, .max_rows = kTokens, .max_positions = kSeqLen}),
        tokens(kTokens),
        targets(kTokens),
        row_weight(kTokens, 1.0F / kTokens) {
    testing::Noise noise;
    noise.Fill(store.master(), 0.04F);
    for (size_t i = 0; i < kTokens; ++i) {
      tokens[i] = static_cast<int32_t>(i * 7919 % 32000);
      targets[i] = static_cast<int32_t>((i + 1) * 7919 % 32000);
    }
    for (int64_t i = 0; i <= kSequences; ++i) {
      cu_seqlens.push_back(static_cast<int32_t>(i * kSeqLen));
    }
  }

  // A whole optimizer step: gradient, clipping, update.
  double Step() {
    const double begin = Now();
    store.ZeroGrad();
    model.ForwardBackward({tokens, targets, row_weight, cu_seqlens});
    const double norm = std::sqrt(SumOfSquares(store.grad()));
    AdamWUpdate({store.master(), store.grad(), store.moment1(), store.moment2()},
                {.lr = 1e-4,
                 .beta1 = 0.9,
                 .weight_decay = 0.1,
                 .grad_scale = ClipFactor(norm, 1.0),
                 .update = ++updates});
    return Now() - begin;
  }

  testing::RandomWeights weights;
  KernelProfile profile;
  LoraStore store;
  Transformer model;
  std::vector<int32_t> tokens, targets, cu_seqlens;
  std::vector<float> row_weight;
  int64_t updates = 0;
};

void Run(const Options& options) {
  at::set_num_threads(options.threads);
  Bench bench(options);
  const at::Tensor a = at::rand({kTokens, 2048});
  const at::Tensor b = at::rand({2048, 2048});
  at::Tensor y = at::empty({kTokens, 2048});
  bench.Step();
  MatmulFlopsPerSecond(a, b, y);
  const double flops =
      static_cast<double>(kTokens) *
      static_cast<double>(4 * ActiveMatmulParameters(bench.weights.params()) +
                          6 * ActiveLoraParameters(bench.weights.params(), kRank, kModules));
  std::vector<double> ratios;
  std::vector<double> rates;
  std::vector<double> steps;
  for (int i = 0; i < options.rounds; ++i) {
    const double before = MatmulFlopsPerSecond(a, b, y);
    bench.profile.Reset();
    const double seconds = bench.Step();
    const double rate = std::max(before, MatmulFlopsPerSecond(a, b, y));
    rates.push_back(rate);
    steps.push_back(seconds);
    ratios.push_back(flops / seconds / rate);
    std::printf("round %d: mm %.1f GFLOP/s, step %.3f s, ratio %.3f\n",
                i,
                rate / 1e9,
                seconds,
                ratios.back());
  }
  for (const OperationTime& operation : bench.profile.Operations()) {
    std::printf("%8.2f ms  %6.1f GFLOP/s  %s\n",
                1e3 * operation.seconds,
                operation.flops / operation.seconds / 1e9,
                operation.name.c_str());
  }
  std::printf("mm %.1f GFLOP/s, step %.3f s, %.0f tokens/s, %.1f GFLOP/s, ratio %.3f (best %.3f)\n",
              Median(rates) / 1e9,
              Median(steps),
              kTokens / Median(steps),
              flops / Median(steps) / 1e9,
              Median(ratios),
              *std::max_element(ratios.begin(), ratios.end()));
}

}  // namespace
}  // namespace mft

int main(int argc, char** argv) {
  mft::Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const std::string value = argv[i + 1];
    if (name == "--rounds") {
      options.rounds = std::stoi(value);
    } else if (name == "--threads") {
      options.threads = std::stoi(value);
    } else if (name == "--kernels") {
      options.kernels = value;
    } else if (name == "--policy") {
      options.policy = value == "block" ? mft::RecomputePolicy::kBlock
                       : value == "mlp" ? mft::RecomputePolicy::kMlp
                                        : mft::RecomputePolicy::kNothing;
    } else if (name == "--experts") {
      options.experts = std::stoi(value);
    } else if (name == "--clock") {
      mft::g_clock = value == "cpu" ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    } else {
      std::fprintf(stderr, "unknown option %s\n", name.c_str());
      return 2;
    }
  }
  mft::Run(options);
  return 0;
}
