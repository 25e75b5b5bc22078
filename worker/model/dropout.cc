// SPDX-License-Identifier: Apache-2.0
#include "worker/model/dropout.h"

namespace mft {

namespace {
// SplitMix64's finaliser (Steele et al., 2014): every bit of the input reaches every bit of the
// key.
uint64_t Mix(uint64_t value) {
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
  value = (value ^ value >> 27) * 0x94D049BB133111EB;
  return value ^ value >> 31;
}

uint64_t KeyOf(const Dropout& dropout, DropoutSite site) {
  const uint64_t key =
      Mix(Mix(Mix(dropout.seed + 0x9E3779B97F4A7C15) + static_cast<uint64_t>(dropout.step)) +
          static_cast<uint64_t>(dropout.layer) * 4 + static_cast<uint64_t>(site));
  return dropout.expert < 0 ? key : Mix(key + static_cast<uint64_t>(dropout.expert) + 1);
}
}  // namespace

InputDropout::InputDropout(const KernelTable& kernels,
                           const Dropout& dropout,
                           DropoutSite site,
                           int64_t begin)
    : kernels_(kernels), dropout_(dropout), key_(KeyOf(dropout, site)), begin_(begin) {}

DropoutMask InputDropout::MaskAt(int64_t begin) const {
  return {.key = key_,
          .probability = dropout_.probability,
          .pack = dropout_.pack + begin_ + begin,
          .row = dropout_.row + begin_ + begin};
}

View InputDropout::Scratch(int64_t cols, int64_t count) const {
  return dropout_.scratch.Rows(0, count).Cols(0, cols);
}

View InputDropout::Dropped(View x, int64_t begin, int64_t count) const {
  const View dropped = Scratch(x.cols, count);
  kernels_.dropout(dropped, x.Rows(begin, count), MaskAt(begin), false);
  return dropped;
}

void InputDropout::AddDropped(View dx, View scratch, int64_t begin) const {
  kernels_.dropout(dx.Rows(begin, scratch.rows), scratch, MaskAt(begin), true);
}

}  // namespace mft
