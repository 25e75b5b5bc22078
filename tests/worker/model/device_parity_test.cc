// SPDX-License-Identifier: Apache-2.0
// Each kernel of a device beside the same kernel run by the CPU (emulated_device.h), which other
// tests hold to formulas: same inputs, the same values up to the order of sums.
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/emulated_device.h"
#include "tests/worker/model/device_kernels.h"
#include "worker/kernels/bf16_element.h"

namespace mft {
namespace {

// Memory of one table for the arguments of a kernel, the same values for every table.
class Args {
 public:
  explicit Args(const KernelTable& kernels) : kernels_(kernels), random_(5) {}
  ~Args() {
    for (void* data : taken_) {
      kernels_.memory->release(data);
    }
  }
  Args(const Args&) = delete;
  Args& operator=(const Args&) = delete;

  // Normal values, of the table's type where none is given.
  View Matrix(int64_t rows, int64_t cols) { return Typed(rows, cols, kernels_.type); }
  // The same with memory for what they are when quantised.
  Activation Quantised(int64_t rows, int64_t cols) {
    auto* const at =
        static_cast<std::byte*>(Take(static_cast<size_t>(QuantisedRowsBytes(rows, cols))));
    return {Matrix(rows, cols), QuantisedRowsAt(at, rows, cols)};
  }
  View Floats(int64_t rows, int64_t cols) { return Typed(rows, cols, ElementType::kF32); }
  template <typename T>
  T* List(const std::vector<T>& values) {
    void* const at = Take(values.size() * sizeof(T));
    kernels_.memory->upload(at, values.data(), values.size() * sizeof(T));
    return static_cast<T*>(at);
  }
  // What is compared afterwards.
  void Result(View view) { results_.push_back(view); }
  std::vector<float> Results() const {
    std::vector<float> all;
    for (const View& view : results_) {
      const auto size = static_cast<size_t>(view.rows * view.cols);
      if (view.type == ElementType::kF32) {
        std::vector<float> values(size);
        kernels_.memory->download(values.data(), view.data, size * sizeof(float));
        all.insert(all.end(), values.begin(), values.end());
      } else {
        std::vector<uint16_t> values(size);
        kernels_.memory->download(values.data(), view.data, size * sizeof(uint16_t));
        for (const uint16_t bits : values) {
          all.push_back(Bf16::FromBits(bits));
        }
      }
    }
    return all;
  }

 private:
  void* Take(size_t bytes) {
    taken_.push_back(kernels_.memory->allocate(bytes));
    return taken_.back();
  }
  View Typed(int64_t rows, int64_t cols, ElementType type) {
    std::normal_distribution<float> normal(0, 1);
    const auto size = static_cast<size_t>(rows * cols);
    std::vector<float> values(size);
    std::vector<uint16_t> narrow(size);
    for (size_t i = 0; i < size; ++i) {
      values[i] = normal(random_);
      narrow[i] = Bf16(values[i]).bits;
    }
    const size_t bytes = size * static_cast<size_t>(ElementBytes(type));
    void* const at = Take(bytes);
    const void* const from = type == ElementType::kF32 ? static_cast<const void*>(values.data())
                                                       : static_cast<const void*>(narrow.data());
    kernels_.memory->upload(at, from, bytes);
    return TypedView(at, rows, cols, type);
  }

  const KernelTable& kernels_;
  std::mt19937 random_;
  std::vector<void*> taken_;
  std::vector<View> results_;
};

struct Case {
  const char* name;
  std::function<void(const KernelTable& k, Args& args)> run;
};

const std::vector<int32_t> kOffsets = {0, 1, 8, 40, 131};
constexpr int64_t kRows = 131;

AttentionShape ShapeOf(Args& args, int64_t head_dim) {
  const int32_t* const offsets = args.List(kOffsets);
  return {.heads = 4,
          .kv_heads = 2,
          .head_dim = head_dim,
          .cu_q = kOffsets,
          .cu_k = kOffsets,
          .device_cu_q = offsets,
          .device_cu_k = offsets};
}

void Attend(const KernelTable& k, Args& args) {
  constexpr int64_t kHeadDim = 64;
  const AttentionShape shape = ShapeOf(args, kHeadDim);
  const View q = args.Matrix(kRows, 4 * kHeadDim);
  const View key = args.Matrix(kRows, 2 * kHeadDim);
  const View v = args.Matrix(kRows, 2 * kHeadDim);
  const View out = args.Matrix(kRows, 4 * kHeadDim);
  const View lse = args.Floats(kRows, 4);
  const View d_out = args.Matrix(kRows, 4 * kHeadDim);
  const KernelTable::AttentionGrad grad{.dq = args.Matrix(kRows, 4 * kHeadDim),
                                        .dk = args.Matrix(kRows, 2 * kHeadDim),
                                        .dv = args.Matrix(kRows, 2 * kHeadDim),
                                        .d_out = d_out,
                                        .out = out,
                                        .lse = lse,
                                        .q = q,
                                        .k = key,
                                        .v = v};
  k.attention(out, lse, q, key, v, shape);
  k.attention_backward(grad, shape);
  for (const View& view : {out, grad.dq, grad.dk, grad.dv}) {
    args.Result(view);
  }
}

void Loss(const KernelTable& k, Args& args) {
  constexpr int64_t kVocabulary = 1000;
  std::vector<int32_t> target(kRows);
  std::vector<float> weight(kRows);
  for (size_t i = 0; i < target.size(); ++i) {
    target[i] = static_cast<int32_t>(i * 7919 % kVocabulary);
    weight[i] = 0.001F * static_cast<float>(i % 5);
  }
  const int32_t* const targets = args.List(target);
  const View logits = args.Matrix(kRows, kVocabulary);
  const View factors = args.Floats(2, kRows);
  auto* const state = args.List(std::vector<SoftmaxState>(kRows));
  double* const sums = args.List(std::vector<double>{1.5, 0.25});
  k.fold_softmax(state, logits.Cols(0, 600), 0, targets, View{});
  k.fold_softmax(state, logits.Cols(600, 400), 600, targets, args.Matrix(kRows, 16));
  k.cross_entropy(state, kRows, args.List(weight), factors.row(0), factors.row(1), sums);
  k.fold_sum(sums + 1, sums);
  args.Result(logits);
  args.Result(factors);
  double total = 0;
  k.memory->download(&total, sums + 1, sizeof total);
  const View as_float = args.Floats(1, 1);
  const auto value = static_cast<float>(total);
  k.memory->upload(as_float.data, &value, sizeof value);
  args.Result(as_float);
}

void Update(const KernelTable& k, Args& args) {
  constexpr int64_t kSize = 70'001;
  const View weight = args.Floats(1, kSize);
  const View m = args.Floats(1, kSize);
  const View v = args.Floats(1, kSize);
  const View grad = args.Floats(1, kSize);
  k.zero(v);
  const bool narrow = k.type == ElementType::kBF16;
  const View copy = args.Matrix(1, kSize);
  k.adamw({.weight = weight.f32(),
           .grad = grad.f32(),
           .m = m.f32(),
           .v = v.f32(),
           .copy = narrow ? copy.data : nullptr,
           .size = kSize},
          {.decay = 0.99F,
           .one_minus_beta1 = 0.1F,
           .beta2 = 0.95F,
           .one_minus_beta2 = 0.05F,
           .step_size = 0.01F,
           .inverse_root_correction = 1.1F,
           .eps = 1e-8F,
           .grad_scale = 0.5F});
  double* const sum = args.List(std::vector<double>{0});
  k.sum_of_squares(grad.f32(), kSize, sum);
  double value = 0;
  k.memory->download(&value, sum, sizeof value);
  const View norm = args.Floats(1, 1);
  const auto root = static_cast<float>(std::sqrt(value));
  k.memory->upload(norm.data, &root, sizeof root);
  for (const View& view : {weight, m, v, copy, norm}) {
    args.Result(view);
  }
}

void Drop(const KernelTable& k, Args& args) {
  std::vector<int64_t> pack(kRows, (int64_t{1} << 40) + 3);
  std::vector<int32_t> row(kRows);
  for (size_t i = 0; i < row.size(); ++i) {
    row[i] = static_cast<int32_t>(i);
  }
  const DropoutMask mask{
      .key = 0x123456789ABCDEF, .probability = 0.3, .pack = args.List(pack), .row = args.List(row)};
  const View wide = args.Matrix(kRows, 128);
  const View odd = args.Matrix(kRows, 37);
  k.dropout(wide, args.Matrix(kRows, 128), mask, true);
  k.dropout(odd, odd, mask, false);
  args.Result(wide);
  args.Result(odd);
}

void Multiply(const KernelTable& k, Args& args) {
  for (const int64_t depth : {64, 200}) {
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        const View a = ta ? args.Matrix(depth, kRows) : args.Matrix(kRows, depth);
        const View b = tb ? args.Matrix(48, depth) : args.Matrix(depth, 48);
        const View same = args.Matrix(kRows, 48);
        const View sums = args.Floats(kRows, 48);
        k.gemm(same, a, b, {.transpose_a = ta, .transpose_b = tb, .alpha = 0.5F});
        k.gemm(sums, a, b, {.transpose_a = ta, .transpose_b = tb, .beta = 1});
        k.gemm(same.Cols(8, 16),
               a,
               tb ? b.Rows(16, 16) : b.Cols(16, 16),
               {.transpose_a = ta, .transpose_b = tb, .beta = 1});
        args.Result(same);
        args.Result(sums);
      }
    }
  }
}

void Move(const KernelTable& k, Args& args) {
  std::vector<int32_t> index(kRows);
  std::vector<float> factor(kRows);
  for (size_t i = 0; i < index.size(); ++i) {
    index[i] = static_cast<int32_t>((i * 50 + 3) % kRows);
    factor[i] = static_cast<float>(i) / 17;
  }
  const int32_t* const rows = args.List(index);
  const View x = args.Matrix(kRows, 72);
  const View y = args.Matrix(kRows, 72);
  const View odd = args.Matrix(kRows, 5);
  const View sums = args.Floats(kRows, 72);
  const View wide = args.Floats(kRows, 72);
  k.gather_rows(y, x, rows);
  k.scale_rows(y, args.List(factor));
  k.scatter_add_rows(x, y, rows);
  k.accumulate_rows(sums, x, rows);
  k.add(odd, args.Matrix(kRows, 5));
  k.zero(odd.Rows(3, 2));
  k.copy_rows(odd.Rows(10, 4), odd.Rows(30, 4));
  k.convert(wide, x);
  k.fill_random(y.Rows(0, 9), 77, 0.5F);
  for (const View& view : {x, y, odd, sums, wide}) {
    args.Result(view);
  }
}

void Route(const KernelTable& k, Args& args) {
  const View logits = args.Matrix(kRows, 8);
  const View weight = args.Floats(kRows, 2);
  auto* const chosen = args.List(std::vector<int32_t>(2 * kRows));
  k.route(weight, chosen, logits);
  const View d_logits = args.Matrix(kRows, 8);
  k.route_backward(d_logits, args.Floats(kRows, 2), weight, chosen);
  args.Result(weight);
  args.Result(d_logits);
}

// Only in bf16, and only where the device has such products.
void MultiplyQuantised(const KernelTable& k, Args& args) {
  if (k.gemm_quantised == nullptr) {
    return;
  }
  constexpr int64_t kOut = 384;
  constexpr int64_t kIn = 256;
  constexpr int64_t kQuantRows = 48;
  const View w = args.Matrix(kOut, kIn);
  auto* const bytes = args.List(std::vector<uint8_t>(kOut * kIn));
  const View scales = args.Floats(kOut / kQuantBlockSize, ScaleStride(kIn));
  const QuantisedMat q{TypedView(bytes, kOut, kIn, ElementType::kF8),
                       scales.Cols(0, kIn / kQuantBlockSize)};
  const View y = args.Matrix(kQuantRows, kOut);
  const View dx = args.Matrix(kQuantRows, kIn);
  const Activation x = args.Quantised(kQuantRows, kIn);
  const Activation dy = args.Quantised(kQuantRows, kOut);
  k.quantise(q, w);
  k.quantise_rows(x);
  k.quantise_rows(dy);
  k.gemm_quantised(y, x.quantised, q, true, 0);
  k.gemm_quantised(dx, dy.quantised, q, false, 1);
  args.Result(y);
  args.Result(dx);
}

const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = {
      {"RmsNorm",
       [](const KernelTable& k, Args& args) {
         for (const int64_t cols : {64, 4096, 37}) {
           const View x = args.Matrix(kRows, cols);
           const View y = args.Matrix(kRows, cols);
           const View dx = args.Matrix(kRows, cols);
           const View weight = args.Floats(1, cols);
           const View d_weight = args.Floats(1, cols);
           k.rms_norm(y, x, weight.f32(), 1e-5F);
           k.rms_norm_backward(dx, y, x, weight.f32(), 1e-5F);
           k.rms_norm_weight_gradient(d_weight.f32(), y, x, 1e-5F);
           for (const View& view : {y, dx, d_weight}) {
             args.Result(view);
           }
         }
       }},
      {"Rotary",
       [](const KernelTable& k, Args& args) {
         std::vector<int32_t> position(kRows);
         for (size_t i = 0; i < position.size(); ++i) {
           position[i] = static_cast<int32_t>(i % 50);
         }
         for (const int64_t head_dim : {16, 6}) {
           const View x = args.Matrix(kRows, 3 * head_dim);
           const View table = args.Floats(50, head_dim);
           k.rotary(x, args.List(position), table.f32(), head_dim, false);
           args.Result(x);
         }
       }},
      {"Swiglu",
       [](const KernelTable& k, Args& args) {
         for (const int64_t cols : {48, 51}) {
           const View act = args.Matrix(kRows, cols);
           const View gate = args.Matrix(kRows, cols);
           const View up = args.Matrix(kRows, cols);
           const View dot = args.Floats(1, kRows);
           k.swiglu(act, gate, up);
           args.Result(act);
           const View d_act = args.Matrix(kRows, cols);
           k.swiglu_backward_dot(d_act, gate, up, dot.f32());
           k.swiglu_backward(args.Matrix(kRows, cols), args.Matrix(kRows, cols), up);
           for (const View& view : {d_act, gate, up, dot}) {
             args.Result(view);
           }
         }
       }},
      {"Attention", Attend},
      {"CrossEntropy", Loss},
      {"AdamW", Update},
      {"Dropout", Drop},
      {"Gemm", Multiply},
      {"Rows", Move},
      {"Routing", Route},
      {"QuantisedGemm", MultiplyQuantised}};
  return cases;
}

class DeviceParity : public ::testing::TestWithParam<std::tuple<Case, bool>> {};

TEST_P(DeviceParity, WithTheSameKernelRunByTheCpu) {
  const auto& [test, bf16] = GetParam();
  const KernelTable& device = testing::DeviceKernels(bf16);
  const KernelTable& reference = testing::EmulatedKernels(bf16);
  if (bf16 && test.name == std::string("QuantisedGemm") && device.gemm_quantised == nullptr) {
    GTEST_SKIP() << "kernels " << device.name << " have no fp8 products";
  }
  Args actual_args(device);
  Args expected_args(reference);
  test.run(device, actual_args);
  test.run(reference, expected_args);
  const std::vector<float> actual = actual_args.Results();
  const std::vector<float> expected = expected_args.Results();
  ASSERT_EQ(actual.size(), expected.size());
  // A sum in another order may round to the next bf16; a probability of attention is rounded to it.
  const double tolerance = bf16 ? 0.02 : 2e-5;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance * (1 + std::abs(expected[i]))) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels,
                         DeviceParity,
                         ::testing::Combine(::testing::ValuesIn(Cases()), ::testing::Bool()),
                         [](const auto& info) {
                           return std::get<0>(info.param).name +
                                  std::string(std::get<1>(info.param) ? "Bf16" : "Fp32");
                         });

}  // namespace
}  // namespace mft
