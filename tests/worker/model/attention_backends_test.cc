// SPDX-License-Identifier: Apache-2.0
// Each way that a device has to compute attention in bf16 beside the CPU's in fp32, on the same
// rounded inputs.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/worker/model/device_kernels.h"
#include "worker/kernels/bf16_element.h"
#include "worker/model/device_buffer.h"

namespace mft {
namespace {

struct Case {
  const char* name;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  std::vector<int32_t> lengths;
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
};

int64_t RowsOf(const Case& c) {
  return std::accumulate(c.lengths.begin(), c.lengths.end(), int64_t{0});
}

const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = {{"Grouped64", 4, 2, 64, {1, 7, 32, 91}},
                                          {"Grouped80", 4, 1, 80, {130, 1, 1, 64, 300}},
                                          {"Same96", 3, 3, 96, {129, 200}},
                                          {"Grouped128", 8, 2, 128, {1, 128, 127, 129, 500, 1, 3}},
                                          {"OneRow", 4, 2, 64, {1}},
                                          {"ManyShort", 8, 2, 128, std::vector<int32_t>(70, 5)},
                                          {"Long", 4, 1, 128, {8192, 100}},
                                          {"Mistral7B", 32, 8, 128, {700, 300, 24}}};
  return cases;
}

constexpr const char* kOutputs[] = {"out", "lse", "dq", "dk", "dv"};
using Outputs = std::vector<std::vector<float>>;

// Rounded to bf16, of every input: q, k, v, d_out.
std::vector<std::vector<float>> InputsOf(const Case& c, int64_t rows) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 1);
  std::vector<std::vector<float>> inputs;
  for (const int64_t heads : {c.heads, c.kv_heads, c.kv_heads, c.heads}) {
    std::vector<float> values(static_cast<size_t>(rows * heads * c.head_dim));
    std::ranges::generate(values, [&] { return static_cast<float>(Bf16(normal(random))); });
    inputs.push_back(std::move(values));
  }
  return inputs;
}

// Both passes of a table, in its memory or the process's.
class Passes {
 public:
  Passes(const Case& c, const KernelTable& kernels) : kernels_(kernels) {
    cu_ = {0};
    for (const int32_t length : c.lengths) {
      cu_.push_back(cu_.back() + length);
    }
    const int64_t rows = cu_.back();
    const auto inputs = InputsOf(c, rows);
    const int64_t q = c.heads * c.head_dim;
    const int64_t kv = c.kv_heads * c.head_dim;
    grad_.q = Put(inputs[0], rows, q);
    grad_.k = Put(inputs[1], rows, kv);
    grad_.v = Put(inputs[2], rows, kv);
    grad_.d_out = Put(inputs[3], rows, q);
    grad_.out = Put({}, rows, q);
    grad_.lse = Put({}, rows, c.heads, ElementType::kF32);
    grad_.dq = Put({}, rows, q);
    grad_.dk = Put({}, rows, kv);
    grad_.dv = Put({}, rows, kv);
    shape_ = {
        .heads = c.heads, .kv_heads = c.kv_heads, .head_dim = c.head_dim, .cu_q = cu_, .cu_k = cu_};
    if (kernels.memory != nullptr) {
      void* const cu = Take(cu_.size() * sizeof(int32_t));
      kernels.memory->upload(cu, cu_.data(), cu_.size() * sizeof(int32_t));
      shape_.device_cu_q = shape_.device_cu_k = static_cast<const int32_t*>(cu);
    }
  }

  Outputs Run() {
    kernels_.attention(grad_.out, grad_.lse, grad_.q, grad_.k, grad_.v, shape_);
    kernels_.attention_backward(grad_, shape_);
    Outputs outputs;
    for (const View& view : {grad_.out, grad_.lse, grad_.dq, grad_.dk, grad_.dv}) {
      outputs.push_back(Get(view));
    }
    return outputs;
  }

 private:
  void* Take(size_t bytes) {
    if (kernels_.memory == nullptr) {
      host_.emplace_back(bytes / sizeof(float) + 1);
      return host_.back().data();
    }
    device_.push_back(AllocateOnDevice(*kernels_.memory, bytes, "a test"));
    return device_.back().get();
  }
  View Put(const std::vector<float>& values, int64_t rows, int64_t cols) {
    return Put(values, rows, cols, kernels_.type);
  }
  // No values: what every output must overwrite.
  View Put(std::vector<float> values, int64_t rows, int64_t cols, ElementType type) {
    const auto size = static_cast<size_t>(rows * cols);
    if (values.empty()) {
      values.assign(size, NAN);
    }
    const size_t bytes = size * static_cast<size_t>(ElementBytes(type));
    void* const to = Take(bytes);
    std::vector<uint16_t> narrow(size);
    std::ranges::transform(values, narrow.begin(), [](float v) { return Bf16(v).bits; });
    const void* const from = type == ElementType::kF32 ? static_cast<const void*>(values.data())
                                                       : static_cast<const void*>(narrow.data());
    if (kernels_.memory == nullptr) {
      std::copy_n(static_cast<const char*>(from), bytes, static_cast<char*>(to));
    } else {
      kernels_.memory->upload(to, from, bytes);
    }
    return TypedView(to, rows, cols, type);
  }
  std::vector<float> Get(View view) const {
    const auto size = static_cast<size_t>(view.rows * view.cols);
    std::vector<float> values(size);
    if (kernels_.memory == nullptr) {
      std::copy_n(view.f32(), size, values.data());
    } else if (view.type == ElementType::kF32) {
      kernels_.memory->download(values.data(), view.data, size * sizeof(float));
    } else {
      std::vector<uint16_t> bits(size);
      kernels_.memory->download(bits.data(), view.data, size * sizeof(uint16_t));
      std::ranges::transform(bits, values.begin(), [](uint16_t b) { return Bf16::FromBits(b); });
    }
    return values;
  }

  const KernelTable& kernels_;
  std::vector<std::vector<float>> host_;
  std::vector<DeviceBuffer> device_;
  std::vector<int32_t> cu_;
  KernelTable::AttentionGrad grad_;
  AttentionShape shape_;
};

// [H, T] as [T, H].
std::vector<float> Transposed(const std::vector<float>& values, size_t heads) {
  const size_t rows = values.size() / heads;
  std::vector<float> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    result[i % rows * heads + i / rows] = values[i];
  }
  return result;
}

double RelativeDifference(const std::vector<float>& actual, const std::vector<float>& expected) {
  double norm = 0;
  double difference = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double d = static_cast<double>(actual[i]) - expected[i];
    difference += d * d;
    norm += static_cast<double>(expected[i]) * expected[i];
  }
  // Of one row alone the gradients of q and k are 0: what is left of them by rounding is no error.
  const double least = 1e-4 * static_cast<double>(expected.size());
  return std::sqrt(difference / std::max(norm, least));
}

class AttentionBackends : public ::testing::TestWithParam<std::tuple<std::string, Case>> {};

TEST_P(AttentionBackends, ComputeWhatTheCpuDoes) {
  const auto& [name, c] = GetParam();
  const testing::DeviceAttention backend = testing::AttentionOf(name, c.head_dim, RowsOf(c));
  if (!backend.unusable.empty()) {
    GTEST_SKIP() << name << ": " << backend.unusable;
  }
  Outputs actual = Passes(c, *backend.kernels).Run();
  const Outputs expected = Passes(c, CpuKernels()).Run();
  // FlashAttention's is [H, T].
  if (name == "flash") {
    actual[1] = Transposed(actual[1], static_cast<size_t>(c.heads));
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(actual[i].size(), expected[i].size());
    const bool is_lse = i == 1;
    EXPECT_LE(RelativeDifference(actual[i], expected[i]), is_lse ? 1e-3 : 0.015) << kOutputs[i];
  }
}

TEST_P(AttentionBackends, GiveTheSameBitsAgainWhereTheySaySo) {
  const auto& [name, c] = GetParam();
  const testing::DeviceAttention backend = testing::AttentionOf(name, c.head_dim, RowsOf(c));
  if (!backend.unusable.empty() || !backend.deterministic) {
    GTEST_SKIP() << name << ": "
                 << (backend.unusable.empty() ? "not deterministic" : backend.unusable);
  }
  const Outputs first = Passes(c, *backend.kernels).Run();
  EXPECT_EQ(Passes(c, *backend.kernels).Run(), first);
}

INSTANTIATE_TEST_SUITE_P(Device,
                         AttentionBackends,
                         ::testing::Combine(::testing::Values("rows", "flash", "cudnn"),
                                            ::testing::ValuesIn(Cases())),
                         [](const auto& test) {
                           return std::get<0>(test.param) + std::get<1>(test.param).name;
                         });

}  // namespace
}  // namespace mft
