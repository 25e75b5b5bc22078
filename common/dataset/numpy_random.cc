// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/numpy_random.h"

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <utility>

namespace mft {
namespace {

constexpr size_t kStateWords = std::mt19937::state_size;

// init_by_array of Matsumoto and Nishimura's mt19937ar.c, as a seed sequence for the standard
// engine, which takes the words of generate() as its state.
class ArraySeed {
 public:
  using result_type = uint32_t;
  explicit ArraySeed(std::array<uint32_t, 2> key) : key_(key) {}

  template <typename Iterator>
  void generate(Iterator begin, Iterator end) const {  // the standard's name
    const std::array<uint32_t, kStateWords> state = State();
    std::copy_n(state.begin(), std::distance(begin, end), begin);
  }

 private:
  std::array<uint32_t, kStateWords> State() const {
    std::array<uint32_t, kStateWords> state;
    state[0] = 19650218;
    for (uint32_t i = 1; i < kStateWords; ++i) {
      state[i] = 1812433253u * (state[i - 1] ^ state[i - 1] >> 30) + i;
    }
    size_t at = 1;
    const auto previous = [&] { return state[at - 1] ^ state[at - 1] >> 30; };
    const auto step = [&] {
      if (++at == kStateWords) {
        state[0] = state[kStateWords - 1];
        at = 1;
      }
    };
    for (uint32_t i = 0; i < kStateWords; ++i, step()) {
      const uint32_t j = i % key_.size();
      state[at] = (state[at] ^ previous() * 1664525u) + key_[j] + j;
    }
    for (size_t i = 1; i < kStateWords; ++i, step()) {
      state[at] = (state[at] ^ previous() * 1566083941u) - static_cast<uint32_t>(at);
    }
    state[0] = 0x80000000;
    return state;
  }

  std::array<uint32_t, 2> key_;
};

std::mt19937 Seeded(uint32_t seed, uint32_t rank) {
  ArraySeed sequence({seed, rank});
  return std::mt19937(sequence);
}

}  // namespace

NumpyRandom::NumpyRandom(uint32_t seed, uint32_t rank) : engine_(Seeded(seed, rank)) {}

double NumpyRandom::Uniform() {
  const uint32_t high = NextWord() >> 5;
  const uint32_t low = NextWord() >> 6;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

void NumpyRandom::Shuffle(std::span<int64_t> values) {
  for (size_t i = values.size(); i-- > 1;) {
    const uint32_t mask = ~uint32_t{0} >> std::countl_zero(static_cast<uint32_t>(i));
    uint32_t j;
    do {
      j = NextWord() & mask;
    } while (j > i);
    std::swap(values[i], values[j]);
  }
}

size_t NumpyRandom::Choice(std::span<const double> cumulative) {
  const auto at = std::upper_bound(cumulative.begin(), cumulative.end(), Uniform());
  return std::min<size_t>(at - cumulative.begin(), cumulative.size() - 1);
}

}  // namespace mft
