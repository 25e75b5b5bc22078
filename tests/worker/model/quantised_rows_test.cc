// SPDX-License-Identifier: Apache-2.0
// Rows that a kernel quantises as it writes them against the pass of its own: the same bytes and
// scales, and the rows themselves are what they are without.
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/worker/model/device_kernels.h"
#include "worker/kernels/bf16_element.h"
#include "worker/kernels/f8_element.h"

namespace mft {
namespace {

// Matrices of activations in a table's type, on its device.
class Memory {
 public:
  explicit Memory(bool bf16 = true) : kernels_(testing::DeviceKernels(bf16)) {}
  ~Memory() {
    for (void* data : taken_) {
      kernels_.memory->release(data);
    }
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  const KernelTable& kernels() const { return kernels_; }
  std::byte* Take(size_t bytes) {
    taken_.push_back(kernels_.memory->allocate(bytes));
    return static_cast<std::byte*>(taken_.back());
  }
  template <typename T>
  T* Put(const std::vector<T>& values) {
    std::byte* const at = Take(values.size() * sizeof(T));
    kernels_.memory->upload(at, values.data(), values.size() * sizeof(T));
    return reinterpret_cast<T*>(at);
  }
  View Rows(int64_t rows, int64_t cols, const std::vector<float>& values) {
    if (kernels_.type == ElementType::kF32) {
      return MatrixView(Put(values), rows, cols);
    }
    std::vector<uint16_t> bits;
    for (const float value : values) {
      bits.push_back(Bf16(value).bits);
    }
    return TypedView(Put(bits), rows, cols, ElementType::kBF16);
  }
  // The same values in every object, rows of very different sizes, some of them zeros.
  View Random(int64_t rows, int64_t cols) {
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> values;
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float scale =
          i / cols % 7 == 6 ? 0 : std::ldexp(1.0F, static_cast<int>(i / 128 % 23) - 11);
      values.push_back(scale * normal(random_));
    }
    return Rows(rows, cols, values);
  }
  Activation WithQuantised(View rows) {
    std::byte* const at = Take(static_cast<size_t>(QuantisedRowsBytes(rows.rows, rows.cols)));
    return {rows, QuantisedRowsAt(at, rows.rows, rows.cols)};
  }
  // A contiguous matrix's bytes.
  template <typename T = uint8_t>
  std::vector<T> Get(View view) const {
    EXPECT_EQ(view.stride, view.cols);
    const auto bytes = static_cast<size_t>(view.rows * view.cols * ElementBytes(view.type));
    std::vector<T> values(bytes / sizeof(T));
    kernels_.memory->download(values.data(), view.data, bytes);
    return values;
  }

 private:
  const KernelTable& kernels_;
  std::mt19937 random_{5};
  std::vector<void*> taken_;
};

struct Producer {
  const char* name;
  int64_t cols;
  // Runs a kernel on matrices of `memory`, and returns the activations that it writes: with memory
  // for their quantised rows if `quantised`.
  std::function<std::vector<Activation>(Memory& memory, int64_t rows, int64_t cols, bool quantised)>
      run;
};

Activation Written(Memory& memory, View rows, bool quantised) {
  return quantised ? memory.WithQuantised(rows) : Activation(rows);
}

const std::vector<Producer>& Producers() {
  static const std::vector<Producer> producers = {
      {"RmsNorm",
       2304,  // a block of threads goes round more than once
       [](Memory& memory, int64_t rows, int64_t cols, bool quantised) {
         const Activation y = Written(memory, memory.Random(rows, cols), quantised);
         const View x = memory.Random(rows, cols);
         memory.kernels().rms_norm(
             y, x, memory.Put(std::vector<float>(static_cast<size_t>(cols), 0.7F)), 1e-5F);
         return std::vector{y};
       }},
      {"RmsNormBackward",
       384,
       [](Memory& memory, int64_t rows, int64_t cols, bool quantised) {
         const Activation dx = Written(memory, memory.Random(rows, cols), quantised);
         const View dy = memory.Random(rows, cols);
         const View x = memory.Random(rows, cols);
         memory.kernels().rms_norm_backward(
             dx, dy, x, memory.Put(std::vector<float>(static_cast<size_t>(cols), 0.7F)), 1e-5F);
         return std::vector{dx};
       }},
      {"RotaryBackward",
       256,
       [](Memory& memory, int64_t rows, int64_t cols, bool quantised) {
         constexpr int64_t kHeadDim = 64;
         const Activation x = Written(memory, memory.Random(rows, cols), quantised);
         std::vector<int32_t> position;
         std::vector<float> table;
         for (int64_t i = 0; i < rows; ++i) {
           position.push_back(static_cast<int32_t>(i));
           for (int64_t j = 0; j < kHeadDim / 2; ++j) {
             const auto angle = static_cast<float>(i * (j + 1)) / 50;
             table.push_back(std::cos(angle));
             table.push_back(std::sin(angle));
           }
         }
         memory.kernels().rotary(x, memory.Put(position), memory.Put(table), kHeadDim, true);
         return std::vector{x};
       }},
      {"Swiglu",
       640,
       [](Memory& memory, int64_t rows, int64_t cols, bool quantised) {
         const Activation act = Written(memory, memory.Random(rows, cols), quantised);
         const View gate = memory.Random(rows, cols);
         memory.kernels().swiglu(act, gate, memory.Random(rows, cols));
         return std::vector{act};
       }},
      {"SwigluBackward", 640, [](Memory& memory, int64_t rows, int64_t cols, bool quantised) {
         const Activation gate = Written(memory, memory.Random(rows, cols), quantised);
         const Activation up = Written(memory, memory.Random(rows, cols), quantised);
         memory.kernels().swiglu_backward(memory.Random(rows, cols), gate, up);
         return std::vector{gate, up};
       }}};
  return producers;
}

class QuantisingKernel : public ::testing::TestWithParam<std::tuple<Producer, bool>> {};

TEST_P(QuantisingKernel, GivesTheBytesAndScalesOfThePassOfItsOwn) {
  const auto& [producer, bf16] = GetParam();
  for (const int64_t rows : {1, 7, 16, 75}) {
    Memory memory(bf16);
    const std::vector<Activation> fused = producer.run(memory, rows, producer.cols, true);
    Memory plain_memory(bf16);
    const std::vector<Activation> plain = producer.run(plain_memory, rows, producer.cols, false);
    for (size_t i = 0; i < fused.size(); ++i) {
      ASSERT_EQ(memory.Get(fused[i].view), memory.Get(plain[i].view)) << rows;
      const Activation separate = memory.WithQuantised(fused[i].view);
      memory.kernels().quantise_rows(separate);
      const QuantisedRows& q = fused[i].quantised;
      ASSERT_EQ(memory.Get<uint8_t>(q.data), memory.Get<uint8_t>(separate.quantised.data)) << rows;
      ASSERT_EQ(memory.Get<float>(q.scales), memory.Get<float>(separate.quantised.scales)) << rows;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels,
                         QuantisingKernel,
                         ::testing::Combine(::testing::ValuesIn(Producers()), ::testing::Bool()),
                         [](const auto& run) {
                           return std::get<0>(run.param).name +
                                  std::string(std::get<1>(run.param) ? "Bf16" : "Fp32");
                         });

// By the definition: a scale for each 128 elements of a row, [block][row], and the nearest e4m3.
TEST(QuantiseRows, ScalesTheLargestOfEachBlockTo448) {
  constexpr int64_t kRows = 19;
  constexpr int64_t kCols = 384;
  Memory memory;
  const Activation x = memory.WithQuantised(memory.Random(kRows, kCols));
  memory.kernels().quantise_rows(x);
  const auto values = memory.Get<uint16_t>(x.view);
  const auto bytes = memory.Get<uint8_t>(x.quantised.data);
  const auto scales = memory.Get<float>(x.quantised.scales);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t block = 0; block < kCols / 128; ++block) {
      const auto at = [&](int64_t i) { return static_cast<size_t>(row * kCols + block * 128 + i); };
      float largest = 0;
      for (int64_t i = 0; i < 128; ++i) {
        largest = std::max(largest, std::abs(static_cast<float>(Bf16::FromBits(values[at(i)]))));
      }
      const float scale = scales[static_cast<size_t>(block * kRows + row)];
      ASSERT_EQ(scale, largest / 448) << row << " " << block;
      for (int64_t i = 0; i < 128; ++i) {
        const float value = Bf16::FromBits(values[at(i)]);
        ASSERT_EQ(bytes[at(i)], F8E4M3(value * (scale > 0 ? 1 / scale : 0)).bits);
      }
    }
  }
}

// A gradient may be all but nothing; 1 / scale must not be infinite.
TEST(QuantiseRows, MakesZerosOfABlockThatIsTooSmallForAScale) {
  Memory memory;
  std::vector<float> values(3 * 128, 0.0F);
  for (size_t i = 0; i < 128; i += 2) {
    values[i] = 9.2e-41F;      // bf16's smallest
    values[128 + i] = 1e-37F;  // the scale would be no normal number
    values[256 + i] = 1e-34F;
  }
  const Activation x = memory.WithQuantised(memory.Rows(3, 128, values));
  memory.kernels().quantise_rows(x);
  const auto bytes = memory.Get<uint8_t>(x.quantised.data);
  EXPECT_EQ(std::vector<uint8_t>(bytes.begin(), bytes.begin() + 256), std::vector<uint8_t>(256, 0));
  EXPECT_EQ(bytes[256], F8E4M3(448.0F).bits);
  const auto scales = memory.Get<float>(x.quantised.scales);
  EXPECT_EQ(scales[0], 0);
  EXPECT_EQ(scales[1], 0);
  EXPECT_GT(scales[2], 0);
}

TEST(QuantiseRows, KeepsNaNs) {
  Memory memory;
  std::vector<float> values(128, 1.0F);
  values[77] = std::numeric_limits<float>::quiet_NaN();
  const Activation x = memory.WithQuantised(memory.Rows(1, 128, values));
  memory.kernels().quantise_rows(x);
  const auto bytes = memory.Get<uint8_t>(x.quantised.data);
  EXPECT_EQ(bytes[77] & 0x7f, 0x7f);
  EXPECT_EQ(bytes[76], F8E4M3(448.0F).bits);
}

TEST(QuantisingKernels, WriteAPartOfTheRowsOfMore) {
  constexpr int64_t kRows = 48;
  constexpr int64_t kCols = 256;
  Memory memory;
  const Activation whole = memory.WithQuantised(memory.Random(kRows, kCols));
  const float* const weight = memory.Put(std::vector<float>(kCols, 1.25F));
  const View x = memory.Random(kRows, kCols);
  memory.kernels().rms_norm(whole.Rows(0, 32), x.Rows(0, 32), weight, 1e-5F);
  memory.kernels().rms_norm(whole.Rows(32, 16), x.Rows(32, 16), weight, 1e-5F);
  EXPECT_FALSE(whole.Rows(32, 16).quantised.is_operand());
  EXPECT_TRUE(whole.quantised.is_operand());
  const Activation separate = memory.WithQuantised(whole.view);
  memory.kernels().quantise_rows(separate);
  EXPECT_EQ(memory.Get<uint8_t>(whole.quantised.data),
            memory.Get<uint8_t>(separate.quantised.data));
  EXPECT_EQ(memory.Get<float>(whole.quantised.scales),
            memory.Get<float>(separate.quantised.scales));
}

TEST(QuantisingKernels, RefuseRowsThatAreNoWholeBlocksOrCannotBeReadInVectors) {
  Memory memory;
  const float* const weight = memory.Put(std::vector<float>(256, 1.0F));
  const View x = memory.Random(16, 256);
  const Activation y = memory.WithQuantised(memory.Random(16, 256));
  Activation partial = y;
  partial.view = y.view.Cols(0, 192);
  partial.quantised.data = y.quantised.data.Cols(0, 192);
  EXPECT_THROW(memory.kernels().rms_norm(partial, x.Cols(0, 192), weight, 1e-5F),
               std::invalid_argument);
  const View odd = memory.Random(16, 257).Cols(1, 256);
  EXPECT_THROW(memory.kernels().rms_norm(y, odd, weight, 1e-5F), std::invalid_argument);
  EXPECT_THROW(memory.kernels().quantise_rows(x), std::invalid_argument);
}

}  // namespace
}  // namespace mft
