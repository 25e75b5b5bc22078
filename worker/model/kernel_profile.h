// SPDX-License-Identifier: Apache-2.0
// Where a step's time goes: every call of a kernel, timed under the name of its operation.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "worker/kernels/kernels.h"
#include "worker/model/weight_source.h"

namespace mft {

struct OperationTime {
  std::string name;  // "w1 forward", "attention backward", "adapters gradient", "rms_norm"
  int64_t calls = 0;
  double seconds = 0;
  double flops = 0;  // of matrix products and attention; 0: the operation is bound by memory
};

// A kernel table whose functions do as those of `kernels` and note the time. A matrix product is
// named after the frozen weight that it reads; the others are the adapters'. Without a profile
// nothing is timed. One at a time in a process, since functions of a table carry no state.
class KernelProfile {
 public:
  // Learns the weights' names from `weights`; both arguments must outlive the profile.
  KernelProfile(const KernelTable& kernels, WeightSource& weights);
  ~KernelProfile();
  KernelProfile(const KernelProfile&) = delete;
  KernelProfile& operator=(const KernelProfile&) = delete;

  const KernelTable& kernels() const { return timed_; }
  void Reset() { times_.clear(); }
  // Since construction or Reset, the longest first.
  std::vector<OperationTime> Operations() const;

 private:
  template <auto kMember>
  struct Timed;
  class Timer;
  static void Gemm(View y, View a, View b, KernelTable::Gemm options);
  static void GemmQuantised(
      View y, const QuantisedRows& x, const QuantisedMat& w, bool transpose_w, float beta);
  static std::string NameOf(const void* weight);
  static void Attention(View out, View lse, View q, View k, View v, const AttentionShape& shape);
  static void AttentionBackward(const KernelTable::AttentionGrad& grad,
                                const AttentionShape& shape);
  template <auto kMember>
  void Wrap(const char* name);
  void LearnNames(WeightSource& weights);

  const KernelTable& inner_;
  KernelTable timed_;
  struct Named {
    const void* end;
    const char* name;
  };
  // Of frozen weights, by their first element: a product may take a part of one.
  std::map<const void*, Named> names_;
  std::map<std::string, OperationTime> times_;
};

}  // namespace mft
