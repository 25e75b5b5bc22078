// SPDX-License-Identifier: Apache-2.0
// The CPU's kernel table: rows are shared out over OpenMP threads, each row is done by the
// instruction set's body.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "worker/kernels/attention_cpu.h"
#include "worker/kernels/dropout_row.h"
#include "worker/kernels/gemm_blocked.h"
#include "worker/kernels/gemm_cpu.h"
#include "worker/kernels/kernels.h"
#include "worker/kernels/row_kernels.h"
#include "worker/kernels/softmax_row.h"

namespace mft {

namespace {
// Functions of a KernelTable carry no state, so the instruction set is a template argument.
using RowsOf = const RowKernels& (*)();
using GemmOf = void (*)(View y, View a, View b, KernelTable::Gemm options);

template <typename Body>
void ForRows(int64_t count, const Body& body) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    body(i);
  }
}

// Sum over rows in a fixed order, whatever the threads do.
template <typename Body>
double SumRows(int64_t count, const Body& body) {
  std::vector<double> values(static_cast<size_t>(count));
  ForRows(count, [&](int64_t i) { values[static_cast<size_t>(i)] = body(i); });
  double sum = 0;
  for (const double value : values) {
    sum += value;
  }
  return sum;
}

template <RowsOf kRows>
void FoldSoftmax(
    SoftmaxState* state, View logits, int64_t first, const int32_t* target, View sums) {
  ForRows(logits.rows, [&](int64_t i) {
    const float factor =
        kRows().fold_softmax(state[i], logits.row(i), logits.cols, target[i] - first, first == 0);
    if (sums.rows > 0 && factor != 1) {
      kRows().scale(sums.row(i), sums.cols, factor);
    }
  });
}

void CrossEntropy(const SoftmaxState* state,
                  int64_t rows,
                  const float* row_weight,
                  float* exp_factor,
                  float* target_factor,
                  double* sum) {
  *sum += SumRows(rows, [&](int64_t i) {
    const double weight = row_weight[i];
    exp_factor[i] = static_cast<float>(weight / state[i].sum);
    target_factor[i] = static_cast<float>(weight * elementwise::TargetGradientOf(state[i]));
    return weight * elementwise::CrossEntropyOf(state[i]);
  });
}

template <RowsOf kRows>
void SoftmaxGradient(View logits,
                     const SoftmaxState* state,
                     int64_t first,
                     const int32_t* target,
                     const float* exp_factor,
                     const float* target_factor) {
  ForRows(logits.rows, [&](int64_t i) {
    kRows().exp_row(logits.row(i), logits.cols, 1, state[i].max);
    kRows().scale(logits.row(i), logits.cols, exp_factor[i]);
    if (target[i] >= first && target[i] < first + logits.cols) {
      logits.row(i)[target[i] - first] = target_factor[i];
    }
  });
}

// Sums over rows, shared out by columns, so that a sum has one order: calls body(begin, end).
constexpr int64_t kStripe = 64;
template <typename Body>
void ForStripes(int64_t cols, const Body& body) {
  ForRows((cols + kStripe - 1) / kStripe,
          [&](int64_t stripe) { body(stripe * kStripe, std::min(cols, (stripe + 1) * kStripe)); });
}

template <RowsOf kRows>
void RmsNormWeightGradient(float* d_weight, View dy, View x, float eps) {
  std::vector<float> inverse_rms(static_cast<size_t>(x.rows));
  ForRows(x.rows, [&](int64_t i) {
    inverse_rms[static_cast<size_t>(i)] = kRows().inverse_rms(x.row(i), x.cols, eps);
  });
  ForStripes(x.cols, [&](int64_t begin, int64_t end) {
    std::array<double, kStripe> sum{};
    for (int64_t i = 0; i < x.rows; ++i) {
      const double r = inverse_rms[static_cast<size_t>(i)];
      for (int64_t j = begin; j < end; ++j) {
        sum[static_cast<size_t>(j - begin)] += r * dy.row(i)[j] * x.row(i)[j];
      }
    }
    for (int64_t j = begin; j < end; ++j) {
      d_weight[j] += static_cast<float>(sum[static_cast<size_t>(j - begin)]);
    }
  });
}

template <RowsOf kRows>
void AccumulateRows(View y, View x, const int32_t* index) {
  ForStripes(x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < x.rows; ++i) {
      kRows().add(y.row(index[i]) + begin, x.row(i) + begin, end - begin);
    }
  });
}

template <RowsOf kRows>
void AddTrainingKernels(KernelTable& table) {
  table.rms_norm_weight_gradient = RmsNormWeightGradient<kRows>;
  table.softmax_gradient = SoftmaxGradient<kRows>;
  table.accumulate_rows = AccumulateRows<kRows>;
}

template <RowsOf kRows>
void DropRows(View y, View x, const DropoutMask& mask, bool add) {
  const DropoutRowKey key = elementwise::DropoutKeyOf(mask.key, mask.probability);
  ForRows(x.rows, [&](int64_t i) {
    DropoutRowKey of_row = key;
    of_row.row = static_cast<uint32_t>(mask.row[i]);
    of_row.pack = static_cast<uint64_t>(mask.pack[i]);
    kRows().dropout(y.row(i), x.row(i), x.cols, of_row, add);
  });
}

template <RowsOf kRows>
void GatherRows(View y, View table, const int32_t* index) {
  ForRows(y.rows, [&](int64_t i) {
    if (table.type == ElementType::kBF16) {
      kRows().widen(y.row(i), table.bf16_row(index[i]), y.cols);
    } else {
      std::memcpy(y.row(i), table.row(index[i]), static_cast<size_t>(y.cols) * sizeof(float));
    }
  });
}

void CopyRows(View y, View x) {
  for (int64_t i = 0; i < x.rows; ++i) {
    std::memcpy(y.row(i), x.row(i), static_cast<size_t>(x.cols) * sizeof(float));
  }
}

void Zero(View y) {
  for (int64_t i = 0; i < y.rows; ++i) {
    std::memset(y.row(i), 0, static_cast<size_t>(y.cols) * sizeof(float));
  }
}

template <RowsOf kRows>
void AddExpertKernels(KernelTable& table) {
  table.route = [](View weight, int32_t* chosen, View logits) {
    ForRows(logits.rows, [&](int64_t i) {
      kRows().route(
          weight.row(i), chosen + i * weight.cols, logits.row(i), logits.cols, weight.cols);
    });
  };
  table.route_backward = [](View d_logits, View weighted, View weight, const int32_t* chosen) {
    ForRows(d_logits.rows, [&](int64_t i) {
      kRows().route_backward(d_logits.row(i),
                             weighted.row(i),
                             weight.row(i),
                             chosen + i * weight.cols,
                             d_logits.cols,
                             weight.cols);
    });
  };
  table.swiglu_backward_dot = [](View d_act, View gate, View up, float* dot) {
    ForRows(d_act.rows, [&](int64_t i) {
      dot[i] = kRows().swiglu_backward(d_act.row(i), gate.row(i), up.row(i), d_act.cols);
    });
  };
  table.scale_rows = [](View y, const float* factor) {
    ForRows(y.rows, [&](int64_t i) { kRows().scale(y.row(i), y.cols, factor[i]); });
  };
}

// On the CPU nothing is quantised.
template <RowsOf kRows>
void AddActivationKernels(KernelTable& table) {
  table.rms_norm = [](const Activation& y, View x, const float* weight, float eps) {
    ForRows(x.rows,
            [&](int64_t i) { kRows().rms_norm(y.view.row(i), x.row(i), weight, x.cols, eps); });
  };
  table.rms_norm_backward =
      [](const Activation& dx, View dy, View x, const float* weight, float eps) {
        ForRows(x.rows, [&](int64_t i) {
          kRows().rms_norm_backward(dx.view.row(i), dy.row(i), x.row(i), weight, x.cols, eps);
        });
      };
  table.rotary = [](const Activation& x,
                    const int32_t* position,
                    const float* angles,
                    int64_t head_dim,
                    bool backward) {
    ForRows(x.view.rows, [&](int64_t i) {
      kRows().rotary(x.view.row(i),
                     angles + position[i] * head_dim,
                     x.view.cols / head_dim,
                     head_dim,
                     backward ? -1.0F : 1.0F);
    });
  };
  table.swiglu = [](const Activation& act, View gate, View up) {
    ForRows(gate.rows,
            [&](int64_t i) { kRows().swiglu(act.view.row(i), gate.row(i), up.row(i), gate.cols); });
  };
  table.swiglu_backward = [](View d_act, const Activation& gate, const Activation& up) {
    ForRows(d_act.rows, [&](int64_t i) {
      kRows().swiglu_backward(d_act.row(i), gate.view.row(i), up.view.row(i), d_act.cols);
    });
  };
}

template <RowsOf kRows, GemmOf kGemm>
KernelTable MakeTable(std::string_view name) {
  KernelTable table;
  table.name = name;
  table.gemm = kGemm;
  table.attention = [](View out, View lse, View q, View k, View v, const AttentionShape& shape) {
    AttentionCpu({kRows(), kGemm}, out, lse, q, k, v, shape);
  };
  table.attention_backward = [](const KernelTable::AttentionGrad& grad,
                                const AttentionShape& shape) {
    AttentionBackwardCpu({kRows(), kGemm}, grad, shape);
  };
  table.fold_softmax = FoldSoftmax<kRows>;
  table.cross_entropy = CrossEntropy;
  table.fold_sum = [](double* total, double* sum) {
    *total += *sum;
    *sum = 0;
  };
  table.gather_rows = GatherRows<kRows>;
  table.scatter_add_rows = [](View y, View x, const int32_t* index) {
    ForRows(x.rows, [&](int64_t i) { kRows().add(y.row(index[i]), x.row(i), x.cols); });
  };
  table.add = [](View y, View x) {
    ForRows(x.rows, [&](int64_t i) { kRows().add(y.row(i), x.row(i), x.cols); });
  };
  table.copy_rows = CopyRows;
  table.zero = Zero;
  table.dropout = DropRows<kRows>;
  AddActivationKernels<kRows>(table);
  AddExpertKernels<kRows>(table);
  AddTrainingKernels<kRows>(table);
  return table;
}

struct Variant {
  std::string_view instruction_set;
  bool supported;
  bool preferred;  // where it is supported, for fp32
  KernelTable table;
};

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("fma");
}

bool HasAvx512Bf16() {
  return HasAvx512() && __builtin_cpu_supports("avx512bf16");
}

// The kernel gives a process AMX's registers when it asks for them, all its threads at once, and
// refuses where it does not know them (Documentation/arch/x86/xstate.rst).
bool HasAmxBf16() {
  constexpr unsigned kBf16AndTiles = 1U << 22 | 1U << 24;
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
         (edx & kBf16AndTiles) == kBf16AndTiles &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

// Best first. MKL's own AVX-512 products are the better ones on the processors it takes them on.
const std::array<Variant, 6>& Variants() {
  static const std::array<Variant, 6> variants = {
      Variant{"avx512",
              HasAvx512(),
              !__builtin_cpu_is("intel"),
              MakeTable<RowKernelsAvx512, GemmBlocked>("cpu-avx512")},
      Variant{
          "avx512-mkl", HasAvx512(), true, MakeTable<RowKernelsAvx512, GemmCpu>("cpu-avx512-mkl")},
      Variant{"avx2", HasAvx2(), true, MakeTable<RowKernelsAvx2, GemmCpu>("cpu-avx2")},
      Variant{"baseline", true, true, MakeTable<RowKernelsBaseline, GemmCpu>("cpu-baseline")},
      Variant{"avx512-bf16",
              HasAvx512Bf16(),
              false,
              MakeTable<RowKernelsAvx512, GemmBlockedBf16>("cpu-avx512-bf16")},
      Variant{"avx512-amx-bf16",
              HasAvx512Bf16() && HasAmxBf16(),
              false,
              MakeTable<RowKernelsAvx512, GemmBlockedAmx>("cpu-avx512-amx-bf16")},
  };
  return variants;
}
}  // namespace

const KernelTable& CpuKernels() {
  for (const Variant& variant : Variants()) {
    if (variant.supported && variant.preferred) {
      return variant.table;
    }
  }
  throw std::logic_error("no kernels for this processor");  // the baseline runs everywhere
}

const KernelTable* CpuBf16Kernels() {
  const KernelTable* amx = CpuKernelsFor("avx512-amx-bf16");
  return amx != nullptr ? amx : CpuKernelsFor("avx512-bf16");
}

const KernelTable* CpuKernelsFor(std::string_view instruction_set) {
  for (const Variant& variant : Variants()) {
    if (variant.instruction_set == instruction_set) {
      return variant.supported ? &variant.table : nullptr;
    }
  }
  return nullptr;
}

}  // namespace mft
