// SPDX-License-Identifier: Apache-2.0
// The bodies of elementwise.h for float, compiled once for each instruction set.
#pragma once

#include <cstdint>
#include <string_view>

#include "worker/kernels/softmax_state.h"

namespace mft {

// Which elements of a row are dropped, and the factor of the others.
struct DropoutRowKey {
  uint32_t key0 = 0;
  uint32_t key1 = 0;
  uint32_t row = 0;   // within its pack
  uint64_t pack = 0;  // number of the pack
  uint32_t threshold = 0;
  float scale = 1;
};

struct RowKernels {
  void (*rms_norm)(float* y, const float* x, const float* weight, int64_t n, float eps);
  void (*rms_norm_backward)(
      float* dx, const float* dy, const float* x, const float* weight, int64_t n, float eps);
  void (*rotary)(float* x, const float* table, int64_t heads, int64_t head_dim, float sign);
  void (*swiglu)(float* act, const float* gate, const float* up, int64_t n);
  float (*swiglu_backward)(float* d_act, float* gate, float* up, int64_t n);
  float (*inverse_rms)(const float* x, int64_t n, float eps);
  float (*max_of)(const float* x, int64_t n);
  float (*dot)(const float* x, const float* y, int64_t n);
  float (*exp_row)(float* scores, int64_t n, float scale, float shift);
  void (*attention_backward)(
      float* scores, float* d_p, int64_t n, float scale, float lse, float delta);
  void (*scale)(float* x, int64_t n, float factor);
  void (*add)(float* y, const float* x, int64_t n);
  void (*widen)(float* y, const uint16_t* bf16, int64_t n);
  void (*dropout)(float* y, const float* x, int64_t n, const DropoutRowKey& key, bool add);
  float (*fold_softmax)(SoftmaxState& state, float* logits, int64_t n, int64_t target, bool first);
  void (*route)(float* weight, int32_t* chosen, const float* logits, int64_t experts, int64_t k);
  void (*route_backward)(float* d_logits,
                         const float* weighted,
                         const float* weight,
                         const int32_t* chosen,
                         int64_t experts,
                         int64_t k);
};

const RowKernels& RowKernelsAvx512();
const RowKernels& RowKernelsAvx2();
const RowKernels& RowKernelsBaseline();

}  // namespace mft
