// SPDX-License-Identifier: Apache-2.0
// bf16 as a type to compute with: it widens by itself, and narrows where it is said so. `constexpr`
// so that other devices' compilers may call it.
#pragma once

#include <cstdint>

namespace mft {

struct Bf16 {
  uint16_t bits;

  Bf16() = default;
  // To the nearest, ties to even; NaN stays NaN.
  explicit constexpr Bf16(float value) : bits(Round(value)) {}
  // NOLINTNEXTLINE(google-explicit-constructor): every bf16 is a float
  constexpr operator float() const {
    return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
  }
  static constexpr Bf16 FromBits(uint32_t bits) {
    Bf16 value(0.0F);
    value.bits = static_cast<uint16_t>(bits);
    return value;
  }

 private:
  static constexpr uint16_t Round(float value) {
    const auto bits = __builtin_bit_cast(uint32_t, value);
    if (value != value) {
      return static_cast<uint16_t>((bits >> 16) | 0x40);
    }
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};

}  // namespace mft
