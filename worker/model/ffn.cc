// SPDX-License-Identifier: Apache-2.0
#include "worker/model/ffn.h"

#include <array>

namespace mft {

namespace {
View Inner(View inner, const LoraGroup& group) {
  return inner.Cols(group.inner_offset, group.inner_cols);
}

std::array<Projection, 2> GateUp(const Ffn& f) {
  return {{{&f.w1, f.gate}, {&f.w3, f.up}}};
}

// Gradients, which multiply the weights.
std::array<Projection, 2> GateUpGradients(const Ffn& f) {
  const auto [gate, up] = f.quantised.For(std::array{f.gate, f.up});
  return {{{&f.w1, gate}, {&f.w3, up}}};
}
}  // namespace

void FfnGateUp(const Ffn& f, const Activation& x) {
  const LoraGroup& group = f.lora.gate_up;
  LoraForward(f.kernels, group, Inner(f.inner, group), x, GateUp(f), 0, f.drop_gate_up);
}

void FfnDown(const Ffn& f, View y, float beta) {
  const LoraGroup& group = f.lora.down;
  const Activation act = f.quantised.For(f.act);
  f.kernels.swiglu(act, f.gate, f.up);
  const Projection down{&f.w2, y};
  LoraForward(f.kernels, group, Inner(f.inner, group), act, {&down, 1}, beta, f.drop_down);
}

void FfnDownInner(const Ffn& f) {
  const LoraGroup& group = f.lora.down;
  if (group.inner_cols > 0) {
    f.kernels.swiglu(f.act, f.gate, f.up);
    LoraInner(f.kernels, group, Inner(f.inner, group), f.act, f.drop_down);
  }
}

void FfnBackwardDown(const Ffn& f, const Activation& dy, float* dot) {
  const LoraGroup& group = f.lora.down;
  const Projection down{&f.w2, f.quantised.Operand(f.kernels, dy)};
  const View d_down = Inner(f.d_inner, group);
  LoraBackwardInner(f.kernels, group, d_down, Inner(f.inner, group), {&down, 1});
  LoraBackwardInput(f.kernels, group, f.act, d_down, {&down, 1}, f.drop_down);
  // act holds act again, gate and up their gradients
  if (dot == nullptr) {
    const auto [gate, up] = GateUpGradients(f);
    f.kernels.swiglu_backward(f.act, gate.y, up.y);
  } else {
    f.kernels.swiglu_backward_dot(f.act, f.gate, f.up, dot);
  }
  LoraBackwardA(f.kernels, group, d_down, f.act, f.drop_down);
  if (f.grads.present()) {
    AddWeightGrad(f.kernels, f.grads.w2, dy.view, f.act);
  }
  LoraBackwardInner(f.kernels,
                    f.lora.gate_up,
                    Inner(f.d_inner, f.lora.gate_up),
                    Inner(f.inner, f.lora.gate_up),
                    GateUp(f));
}

void FfnBackwardInput(const Ffn& f, View x, View dx) {
  const LoraGroup& group = f.lora.gate_up;
  const View d_inner = Inner(f.d_inner, group);
  if (group.inner_cols > 0) {
    LoraBackwardA(f.kernels, group, d_inner, x, f.drop_gate_up);
  }
  if (f.grads.present()) {
    AddWeightGrad(f.kernels, f.grads.w1, f.gate, x);
    AddWeightGrad(f.kernels, f.grads.w3, f.up, x);
  }
  LoraBackwardInput(f.kernels, group, dx, d_inner, GateUpGradients(f), f.drop_gate_up);
}

}  // namespace mft
