// SPDX-License-Identifier: Apache-2.0
#include "worker/model/kernel_profile.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

#include "common/base/strings.h"

namespace mft {

namespace {
using ProfileClock = std::chrono::steady_clock;

KernelProfile* g_profile = nullptr;

// Sum over segments of queries x keys x E x heads; the whole square, as FLOPs of attention are
// counted by convention, although a causal kernel needs half of it.
double Scores(const AttentionShape& shape) {
  double sum = 0;
  for (size_t i = 0; i + 1 < shape.cu_q.size(); ++i) {
    sum += static_cast<double>(shape.cu_q[i + 1] - shape.cu_q[i]) *
           static_cast<double>(shape.cu_k[i + 1] - shape.cu_k[i]);
  }
  return sum * static_cast<double>(shape.heads * shape.head_dim);
}
}  // namespace

class KernelProfile::Timer {
 public:
  Timer(std::string name, double flops)
      : name_(std::move(name)), flops_(flops), begin_(ProfileClock::now()) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() {
    if (const DeviceMemory* memory = g_profile->inner_.memory; memory != nullptr) {
      memory->synchronize();
    }
    const std::chrono::duration<double> spent = ProfileClock::now() - begin_;
    OperationTime& time = g_profile->times_[name_];
    ++time.calls;
    time.seconds += spent.count();
    time.flops += flops_;
  }

 private:
  std::string name_;
  double flops_;
  ProfileClock::time_point begin_;
};

// One wrapper for each member of the table.
template <typename R, typename... Args, R (*KernelTable::*kMember)(Args...)>
struct KernelProfile::Timed<kMember> {
  static inline const char* name = nullptr;
  static R Call(Args... args) {
    const Timer timer(name, 0);
    return (g_profile->inner_.*kMember)(args...);
  }
};

template <auto kMember>
void KernelProfile::Wrap(const char* name) {
  Timed<kMember>::name = name;
  timed_.*kMember = Timed<kMember>::Call;
}

// Of the weight that a product reads.
std::string KernelProfile::NameOf(const void* weight) {
  auto name = g_profile->names_.upper_bound(weight);
  const bool frozen = name != g_profile->names_.begin() && weight < (--name)->second.end;
  return frozen ? name->second.name : "adapters";
}

void KernelProfile::GemmQuantised(
    View y, const QuantisedRows& x, const QuantisedMat& w, bool transpose_w, float beta) {
  const Timer timer(StrCat(NameOf(w.data.data), transpose_w ? " forward" : " backward"),
                    2.0 * static_cast<double>(y.rows) * static_cast<double>(y.cols * x.data.cols));
  g_profile->inner_.gemm_quantised(y, x, w, transpose_w, beta);
}

void KernelProfile::Gemm(View y, View a, View b, KernelTable::Gemm options) {
  const char* pass = options.transpose_a   ? " gradient"
                     : options.transpose_b ? " forward"
                                           : " backward";
  const int64_t k = options.transpose_a ? a.rows : a.cols;
  const Timer timer(StrCat(NameOf(b.data), pass),
                    2.0 * static_cast<double>(y.rows) * static_cast<double>(y.cols * k));
  g_profile->inner_.gemm(y, a, b, options);
}

void KernelProfile::Attention(
    View out, View lse, View q, View k, View v, const AttentionShape& shape) {
  const Timer timer("attention forward", 2 * Scores(shape));
  g_profile->inner_.attention(out, lse, q, k, v, shape);
}

void KernelProfile::AttentionBackward(const KernelTable::AttentionGrad& grad,
                                      const AttentionShape& shape) {
  const Timer timer("attention backward", 5 * Scores(shape));
  g_profile->inner_.attention_backward(grad, shape);
}

KernelProfile::KernelProfile(const KernelTable& kernels, WeightSource& weights)
    : inner_(kernels), timed_(kernels) {
  if (g_profile != nullptr) {
    throw std::logic_error("a process has one kernel profile at a time");
  }
  LearnNames(weights);
  timed_.gemm = Gemm;
  timed_.attention = Attention;
  timed_.attention_backward = AttentionBackward;
  Wrap<&KernelTable::rms_norm>("rms_norm");
  Wrap<&KernelTable::rms_norm_backward>("rms_norm backward");
  Wrap<&KernelTable::rms_norm_weight_gradient>("rms_norm gradient");
  Wrap<&KernelTable::softmax_gradient>("cross entropy");
  Wrap<&KernelTable::accumulate_rows>("accumulate rows");
  Wrap<&KernelTable::rotary>("rotary");
  Wrap<&KernelTable::swiglu>("swiglu");
  Wrap<&KernelTable::swiglu_backward>("swiglu backward");
  Wrap<&KernelTable::fold_softmax>("cross entropy");
  Wrap<&KernelTable::cross_entropy>("cross entropy");
  Wrap<&KernelTable::gather_rows>("gather rows");
  Wrap<&KernelTable::scatter_add_rows>("scatter rows");
  Wrap<&KernelTable::add>("add");
  Wrap<&KernelTable::copy_rows>("copy rows");
  Wrap<&KernelTable::zero>("zero");
  Wrap<&KernelTable::convert>("convert");
  Wrap<&KernelTable::fill_random>("random");
  Wrap<&KernelTable::sum_of_squares>("sum of squares");
  Wrap<&KernelTable::adamw>("AdamW");
  Wrap<&KernelTable::dropout>("dropout");
  Wrap<&KernelTable::route>("route");
  Wrap<&KernelTable::route_backward>("route backward");
  Wrap<&KernelTable::swiglu_backward_dot>("swiglu backward");
  Wrap<&KernelTable::scale_rows>("scale rows");
  if (kernels.gemm_quantised != nullptr) {
    timed_.gemm_quantised = GemmQuantised;
    Wrap<&KernelTable::quantise_rows>("quantise");
  }
  g_profile = this;
}

KernelProfile::~KernelProfile() {
  g_profile = nullptr;
}

void KernelProfile::LearnNames(WeightSource& weights) {
  const auto learn = [this](const FrozenMat& matrix, const char* name) {
    if (matrix.data.data != nullptr) {
      names_[matrix.data.data] = {.end = matrix.data.Rows(matrix.out, 0).data, .name = name};
    }
  };
  for (int64_t layer = 0; layer < weights.params().n_layers; ++layer) {
    const BlockLease block = weights.Acquire(layer, Phase::kForward);
    learn(block->wq, "wq");
    learn(block->wk, "wk");
    learn(block->wv, "wv");
    learn(block->wo, "wo");
    learn(block->w1, "w1");
    learn(block->w2, "w2");
    learn(block->w3, "w3");
    learn(block->router, "router");
    for (const ExpertWeights& expert : block->experts) {
      learn(expert.w1, "w1");
      learn(expert.w2, "w2");
      learn(expert.w3, "w3");
    }
  }
  learn(weights.head().output, "output");
}

std::vector<OperationTime> KernelProfile::Operations() const {
  std::vector<OperationTime> operations;
  for (const auto& [name, time] : times_) {
    operations.push_back(time);
    operations.back().name = name;
  }
  std::sort(operations.begin(), operations.end(), [](const auto& a, const auto& b) {
    return a.seconds > b.seconds;
  });
  return operations;
}

}  // namespace mft
