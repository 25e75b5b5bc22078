// SPDX-License-Identifier: Apache-2.0
// e4m3, the 8-bit float of fp8 products: 4 bits of exponent, 3 of mantissa, up to 448, no infinity.
// `constexpr` so that other devices' compilers may call it.
#pragma once

#include <cstdint>

namespace mft {

struct F8E4M3 {
  static constexpr float kLargest = 448.0F;
  uint8_t bits;

  F8E4M3() = default;
  // To the nearest, ties to even; what is larger than kLargest becomes it. NaN stays NaN.
  explicit constexpr F8E4M3(float value) : bits(Round(value)) {}
  // NOLINTNEXTLINE(google-explicit-constructor): every e4m3 is a float
  constexpr operator float() const {
    const uint32_t exponent = (bits >> 3) & 0xFU;
    const uint32_t mantissa = bits & 7U;
    float magnitude = static_cast<float>(mantissa) * 0x1p-9F;
    if (exponent == 15 && mantissa == 7) {
      magnitude = __builtin_bit_cast(float, 0x7fc00000U);
    } else if (exponent > 0) {
      magnitude = __builtin_bit_cast(float, ((exponent + 120) << 23) | (mantissa << 20));
    }
    return (bits & 0x80U) != 0 ? -magnitude : magnitude;
  }

 private:
  static constexpr uint8_t Round(float value) {
    constexpr uint8_t kNan = 0x7F;
    constexpr uint8_t kLargestBits = 0x7E;
    constexpr float kSmallestNormal = 0x1p-6F;
    constexpr float kInteger = 8388608.0F;  // 2^23: adding and subtracting it rounds to an integer
    const auto word = __builtin_bit_cast(uint32_t, value);
    const auto sign = static_cast<uint8_t>((word >> 31) << 7);
    if (value != value) {
      return sign | kNan;
    }
    const float magnitude = __builtin_bit_cast(float, word & 0x7fffffffU);
    if (magnitude < kSmallestNormal) {
      const float steps = magnitude * 0x1p9F + kInteger - kInteger;
      return sign | static_cast<uint8_t>(steps);
    }
    if (magnitude >= kLargest) {
      return sign | kLargestBits;
    }
    const auto exact = __builtin_bit_cast(uint32_t, magnitude);
    const uint32_t rounded = exact + 0x7ffffU + ((exact >> 20) & 1U);
    const uint32_t code = (((rounded >> 23) - 120U) << 3) | ((rounded >> 20) & 7U);
    return sign | static_cast<uint8_t>(code < kLargestBits ? code : kLargestBits);
  }
};

}  // namespace mft
