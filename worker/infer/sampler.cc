// SPDX-License-Identifier: Apache-2.0
#include "worker/infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "worker/kernels/philox.h"

namespace mft {

namespace {
int32_t MostLikely(std::span<const float> logits) {
  int32_t best = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i]) && (best < 0 || logits[i] > logits[static_cast<size_t>(best)])) {
      best = static_cast<int32_t>(i);
    }
  }
  return best;
}

double Uniform(uint64_t seed, uint64_t position) {
  const auto low = [](uint64_t value) { return static_cast<uint32_t>(value); };
  const auto high = [](uint64_t value) { return static_cast<uint32_t>(value >> 32); };
  const auto words = Philox({low(position), high(position), 0, 0}, {low(seed), high(seed)});
  return static_cast<double>(uint64_t{words[0]} << 21 | words[1] >> 11) * 0x1p-53;
}

struct Candidate {
  int32_t id = 0;
  double weight = 0;  // not normalised
};
}  // namespace

int32_t SampleToken(std::span<const float> logits,
                    const SamplingOptions& options,
                    uint64_t position) {
  const int32_t best = MostLikely(logits);
  if (best < 0 || options.temperature <= 0) {
    return best;
  }
  const double max = logits[static_cast<size_t>(best)];
  std::vector<Candidate> candidates;
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i])) {
      const double weight = std::exp((static_cast<double>(logits[i]) - max) / options.temperature);
      candidates.push_back({static_cast<int32_t>(i), weight});
      total += weight;
    }
  }
  if (options.top_p < 1) {
    std::stable_sort(candidates.begin(),
                     candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.weight > b.weight; });
    double kept = 0;
    size_t count = 0;
    while (count < candidates.size() && (count == 0 || kept < options.top_p * total)) {
      kept += candidates[count++].weight;
    }
    candidates.resize(count);
    total = kept;
  }
  double rest = Uniform(options.seed, position) * total;
  for (const Candidate& candidate : candidates) {
    rest -= candidate.weight;
    if (rest < 0) {
      return candidate.id;
    }
  }
  return candidates.back().id;
}

}  // namespace mft
