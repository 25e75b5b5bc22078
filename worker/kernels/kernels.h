// SPDX-License-Identifier: Apache-2.0
// The whole surface of a device's kernels: one table of functions on plain views, no Torch. A
// device is a variant (cpu.cc, cuda/); the scalar bodies in elementwise.h are the specification
// that every variant is tested against.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "worker/kernels/adamw_element.h"
#include "worker/kernels/quantised.h"
#include "worker/kernels/softmax_state.h"
#include "worker/kernels/view.h"

namespace mft {

inline constexpr int kKernelTableVersion = 7;

struct AttentionShape {
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // K; query head h reads key head h / (H / K)
  int64_t head_dim = 0;  // E
  // Row offsets of the segments: queries [segments + 1] and keys [segments + 1]. A segment's
  // queries are its last rows: query i of n attends to the keys up to (number of keys) - n + i.
  // Training passes the same offsets twice.
  std::span<const int32_t> cu_q;
  std::span<const int32_t> cu_k;
  // The same in the device's memory, where that is not the process's own.
  const int32_t* device_cu_q = nullptr;
  const int32_t* device_cu_k = nullptr;
};

// The mask of a dropout: element (row, column) of pack p is dropped as a function of the key, p,
// the row within the pack and the column alone.
struct DropoutMask {
  uint64_t key = 0;               // of the seed, the step and the place
  double probability = 0;         // of being dropped; what is kept is multiplied by 1 / (1 - p)
  const int64_t* pack = nullptr;  // [T]
  const int32_t* row = nullptr;   // [T]
};

// Memory of a device, and the order of its work: what a call reads was written by all kernels and
// uploads before it. Threads: one at a time.
struct DeviceMemory {
  // nullptr: there is no more. Aligned to 256 bytes.
  void* (*allocate)(size_t bytes) = nullptr;
  void (*release)(void* data) = nullptr;
  // `from` is the caller's again when the call returns; nothing is waited for but a place in the
  // pinned buffers that it is copied through.
  void (*upload)(void* to, const void* from, size_t bytes) = nullptr;
  // Waits for everything before it.
  void (*download)(void* to, const void* from, size_t bytes) = nullptr;
  void (*synchronize)() = nullptr;
  int64_t (*free_bytes)() = nullptr;
  // Within the device, in the order of the kernels.
  void (*copy)(void* to, const void* from, size_t bytes) = nullptr;

  // Beside the kernels. Memory of the host for it; nullptr: there is no more.
  void* (*allocate_pinned)(size_t bytes) = nullptr;
  void (*release_pinned)(void* data) = nullptr;
  // Copies to the device after all that is queued so far; `to` has no value until join_copies,
  // after which what is queued finds all copies done that were begun.
  void (*begin_copy)(void* to, const void* pinned, size_t bytes) = nullptr;
  void (*join_copies)() = nullptr;
};

// Flat arenas of one length, as AdamW reads and writes them.
struct AdamWArenas {
  float* weight = nullptr;
  const float* grad = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  void* copy = nullptr;  // of the weights in the table's type, where that is bf16
  int64_t size = 0;
};

// Letters: T rows, D, I, O widths, V vocabulary. On the CPU everything is fp32, but for the
// operands of a product in a table for bf16; sums within a row are fp32, over rows fp64. Every
// function is deterministic for a given number of threads and, gemm excepted, for any number; each
// call uses the process's OpenMP threads. On a device (`memory`) all pointers are of its memory,
// calls return before their work is done, and it is done in the order of the calls. Matrices of
// activations, their gradients, matrices of weights and logits have the table's `type`; vectors,
// factors, lse, gradients of weights and optimizer state are fp32 or what their pointer says. bf16
// is rounded once, when it is written. On a device with fp8 products what is written to an
// Activation is quantised as well, if it has memory for that: what quantise_rows gives of the
// written rows. Threads: one call at a time.
struct KernelTable {
  int version = kKernelTableVersion;
  std::string_view name;  // "cpu-avx512"
  ElementType type = ElementType::kF32;
  const DeviceMemory* memory = nullptr;  // null: the process's own memory

  // y [m, n] = alpha op(a) op(b) + beta y, op(x) = x or its transpose. b may be bf16: the product
  // is that of its elements widened to fp32. A table for bf16 rounds the elements of both operands
  // to bf16 (nearest, ties to even; products of few rows excepted) and sums in fp32.
  struct Gemm {
    bool transpose_a = false;
    bool transpose_b = false;
    float alpha = 1;
    float beta = 0;
  };
  void (*gemm)(View y, View a, View b, Gemm options) = nullptr;

  // y [T, D] = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const Activation& y, View x, const float* weight, float eps) = nullptr;
  // dx [T, D] += gradient of rms_norm at x for dy
  void (*rms_norm_backward)(const Activation& dx, View dy, View x, const float* weight, float eps) =
      nullptr;

  // d_weight [D] += sum over rows of dy x / sqrt(mean(x^2) + eps): rms_norm's own weight's gradient
  void (*rms_norm_weight_gradient)(float* d_weight, View dy, View x, float eps) = nullptr;

  // Rotates the pairs (2j, 2j+1) of each head of x [T, heads E] in place by the angle of
  // `position`; table [positions, E/2, (cos, sin)]. `backward` rotates the other way.
  void (*rotary)(const Activation& x,
                 const int32_t* position,
                 const float* table,
                 int64_t head_dim,
                 bool backward) = nullptr;

  // act [T, F] = silu(gate) * up
  void (*swiglu)(const Activation& act, View gate, View up) = nullptr;
  // From d_act [T, F]: gate and up are replaced by their gradients, d_act by act.
  void (*swiglu_backward)(View d_act, const Activation& gate, const Activation& up) = nullptr;

  // out [Tq, H E] = softmax(q k' / sqrt(E)) v, causal within segments; lse [Tq, H] = log sum exp of
  // the scaled scores, in an order that is the table's own.
  void (*attention)(View out, View lse, View q, View k, View v, const AttentionShape& shape) =
      nullptr;
  // Gradients dq [T, H E], dk and dv [T, K E] (written, not added to) for d_out. REQUIRES cu_q
  // equal to cu_k.
  struct AttentionGrad {
    View dq, dk, dv;
    View d_out, out, lse, q, k, v;
  };
  void (*attention_backward)(const AttentionGrad& grad, const AttentionShape& shape) = nullptr;

  // Cross entropy over a vocabulary whose logits come in blocks of columns and are never kept, as
  // attention does over keys (Milakov and Gimelshein, 2018, "Online normalizer calculation for
  // softmax"). logits [T, B], columns first, first + 1, .. of the vocabulary, the block of column 0
  // first, are folded into state [T] and become e^(logit - largest so far), 0 at the target.
  // sums [T, D], no rows where there are none, are scaled to the new largest.
  void (*fold_softmax)(
      SoftmaxState* state, View logits, int64_t first, const int32_t* target, View sums) = nullptr;
  // After the last block: adds the sum over rows of row_weight * cross entropy to *sum. The
  // gradient for what the logits were made of, row_weight * sum over v of (softmax -
  // onehot(target)) W_v, is exp_factor [T] times the sum over blocks of e^.. W plus target_factor
  // [T] times W_target. (The target is apart since softmax - 1 may be small where softmax, rounded,
  // is 1.)
  void (*cross_entropy)(const SoftmaxState* state,
                        int64_t rows,
                        const float* row_weight,
                        float* exp_factor,
                        float* target_factor,
                        double* sum) = nullptr;
  // *total += *sum; *sum = 0
  void (*fold_sum)(double* total, double* sum) = nullptr;

  // After cross_entropy, of logits computed again (a full fine-tuning multiplies by them twice):
  // they become row_weight * (softmax - onehot(target)).
  void (*softmax_gradient)(View logits,
                           const SoftmaxState* state,
                           int64_t first,
                           const int32_t* target,
                           const float* exp_factor,
                           const float* target_factor) = nullptr;

  // y [T, D]: rows `index` of table, which may be bf16.
  void (*gather_rows)(View y, View table, const int32_t* index) = nullptr;
  // y [.., D]: row index[i] += x row i. Indices must be distinct.
  void (*scatter_add_rows)(View y, View x, const int32_t* index) = nullptr;
  // The same for indices that repeat, in the order of the rows.
  void (*accumulate_rows)(View y, View x, const int32_t* index) = nullptr;
  // y += x
  void (*add)(View y, View x) = nullptr;
  // y = x
  void (*copy_rows)(View y, View x) = nullptr;
  // y = 0, of any type
  void (*zero)(View y) = nullptr;
  // y = dropout(x), or y += dropout(x). [T, I]; y may be x.
  void (*dropout)(View y, View x, const DropoutMask& mask, bool add) = nullptr;

  // Mixture of experts. chosen [T, k] and weight [T, k]: for each row of logits [T, E] the k
  // largest and the softmax over them alone.
  void (*route)(View weight, int32_t* chosen, View logits) = nullptr;
  // d_logits [T, E] from weighted [T, k], each weight times its gradient.
  void (*route_backward)(View d_logits,
                         View weighted,
                         View weight,
                         const int32_t* chosen) = nullptr;
  // As swiglu_backward, and dot [T] = sum over a row of d_act act.
  void (*swiglu_backward_dot)(View d_act, View gate, View up, float* dot) = nullptr;
  // y [T, D]: row i times factor[i].
  void (*scale_rows)(View y, const float* factor) = nullptr;

  // Of devices only; on the CPU the caller has the arenas before it.
  void (*adamw)(const AdamWArenas& arenas, const AdamWScalars& scalars) = nullptr;
  // *sum = sum of squares in fp64, in an order that depends on `size` alone; not finite if and only
  // if an element is not.
  void (*sum_of_squares)(const float* values, int64_t size, double* sum) = nullptr;
  // y = x, each fp32 or bf16
  void (*convert)(View y, View x) = nullptr;
  // q from w [O, I] of the table's type.
  void (*quantise)(const QuantisedMat& q, View w) = nullptr;
  // x.quantised from x.view, where the kernel that wrote these has not done it.
  void (*quantise_rows)(const Activation& x) = nullptr;
  // y [T, O] = x w' + beta y with transpose_w, y [T, I] = x w + beta y without. T is a multiple of
  // 16. REQUIRES x.is_operand(). nullptr: the device has no fp8 products.
  void (*gemm_quantised)(View y,
                         const QuantisedRows& x,
                         const QuantisedMat& w,
                         bool transpose_w,
                         float beta) = nullptr;
  // y uniform in [-scale, scale): element i of row r a function of (seed, r, i).
  void (*fill_random)(View y, uint64_t seed, float scale) = nullptr;
};

// The CPU's fp32 kernels for the best instruction set that this machine has.
const KernelTable& CpuKernels();

// Those for bf16, on AMX where the processor has it and the kernel permits it, or nullptr where the
// processor has no instruction for bf16 (AVX512-BF16).
const KernelTable* CpuBf16Kernels();

// Kernels of a named instruction set ("avx512", "avx512-mkl", "avx512-bf16" and "avx512-amx-bf16",
// which differ in the matrix product, "avx2", "baseline"), or nullptr where this machine lacks it.
// For tests.
const KernelTable* CpuKernelsFor(std::string_view instruction_set);

}  // namespace mft
