// SPDX-License-Identifier: Apache-2.0
// NumPy's legacy RandomState([seed, rank]), as far as mistral-finetune's loader uses it
// (finetune-spec 2.8).
#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace mft {

// Threads: one at a time.
class NumpyRandom {
 public:
  NumpyRandom(uint32_t seed, uint32_t rank);  // MT19937, init_by_array([seed, rank])
  uint32_t NextWord() { return static_cast<uint32_t>(engine_()); }
  double Uniform();                         // 53 bits in [0, 1)
  void Shuffle(std::span<int64_t> values);  // in place, from the end
  // First index whose cumulative probability exceeds one Uniform(). `cumulative` ends with 1.
  size_t Choice(std::span<const double> cumulative);

 private:
  std::mt19937 engine_;
};

}  // namespace mft
