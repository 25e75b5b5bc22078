// SPDX-License-Identifier: Apache-2.0
#include "worker/train/lora_init.h"

#include <cmath>

#include "common/base/status.h"
#include "common/base/strings.h"
#include "worker/kernels/philox.h"
#include "worker/model/bf16.h"

namespace mft {

namespace {
constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;

// FNV-1a over the seed's bytes and the name: part of what a seed means.
uint64_t KeyOf(int64_t seed, std::string_view name) {
  uint64_t hash = kFnvOffset;
  const auto add = [&hash](uint8_t byte) { hash = (hash ^ byte) * kFnvPrime; };
  for (int shift = 0; shift < 64; shift += 8) {
    add(static_cast<uint8_t>(static_cast<uint64_t>(seed) >> shift));
  }
  for (const char c : name) {
    add(static_cast<uint8_t>(c));
  }
  return hash;
}

uint32_t High(uint64_t value) {
  return static_cast<uint32_t>(value >> 32);
}
uint32_t Low(uint64_t value) {
  return static_cast<uint32_t>(value);
}
}  // namespace

void InitLoraA(int64_t seed, std::string_view name, int64_t in, bool bf16, std::span<float> a) {
  MFT_CHECK(in > 0, StrCat(name, ": ", in, " inputs"));
  const uint64_t key = KeyOf(seed, name);
  const float bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(in)));
  for (size_t i = 0; i < a.size(); i += 4) {
    const uint64_t block = i / 4;
    const auto words = Philox({Low(block), High(block), 0, 0}, {Low(key), High(key)});
    for (size_t j = 0; j < 4 && i + j < a.size(); ++j) {
      const float value = (2.0F * UnitFloat(words[j]) - 1.0F) * bound;
      a[i + j] = bf16 ? FloatFromBf16(Bf16Bits(value)) : value;
    }
  }
}

}  // namespace mft
