// SPDX-License-Identifier: Apache-2.0
// Prints what packing `whole` wastes (rows of its packs that hold nothing) for log-normal sample
// lengths, which is what chat data has. Nothing is tokenised: packing sees lengths alone.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "common/dataset/whole_packer.h"
#include "tests/support/cache_builder.h"
#include "tests/support/temp_dir.h"

namespace {

constexpr int kSamples = 20'000;
constexpr int kEpochs = 2;
constexpr double kSigma = 1.0;

struct Measured {
  double mean = 0;      // rows a sample
  double overlong = 0;  // share of the samples that are longer than seq_len
  double waste = 0;     // share of the packs' rows
  int64_t cut = 0;      // samples that fit and were cut
};

std::vector<mft::testing::TestSample> Samples(double mean) {
  std::mt19937 random(11);
  std::normal_distribution<double> normal(std::log(mean) - kSigma * kSigma / 2, kSigma);
  std::vector<mft::testing::TestSample> samples;
  for (int i = 0; i < kSamples; ++i) {
    const auto rows = static_cast<size_t>(std::max(1.0, std::exp(normal(random))));
    samples.push_back({.tokens = std::vector<int32_t>(rows + 1, 7)});
  }
  return samples;
}

Measured Measure(const mft::TokenCache& cache, int64_t seq_len) {
  Measured measured;
  int64_t total = 0;
  for (int64_t i = 0; i < kSamples; ++i) {
    const int64_t rows = cache.info(0, i).length - 1;
    total += rows;
    measured.overlong += rows > seq_len ? 1.0 / kSamples : 0;
  }
  measured.mean = static_cast<double>(total) / kSamples;
  mft::WholeSource source(cache, {.seed = 1, .seq_len = seq_len});
  int64_t rows = 0;
  int64_t packs = 0;
  for (; rows < total * kEpochs; ++packs) {
    const mft::Result<mft::Pack> pack = source.Next();
    if (!pack.ok()) {
      std::fprintf(stderr, "%s\n", pack.status().ToString().c_str());
      std::exit(1);
    }
    rows += pack->rows;
    for (const mft::Slice& slice : pack->slices) {
      const int64_t whole = cache.info(slice.source, slice.sample).length - 1;
      measured.cut += whole <= seq_len && slice.rows != whole ? 1 : 0;
    }
  }
  measured.waste = 1 - static_cast<double>(rows) / static_cast<double>(packs * seq_len);
  return measured;
}

}  // namespace

int main() {
  std::printf(
      "%d samples, log-normal, sigma %.0f, %d epochs, shuffled\n", kSamples, kSigma, kEpochs);
  std::printf("  mean  seq_len  overlong   waste  cut\n");
  for (const double mean : {300., 900., 2000.}) {
    const mft::testing::TempDir dir;
    const auto cache = mft::testing::BuildCache(dir.File("key"), {{.files = {Samples(mean)}}});
    for (const int64_t seq_len : {2048, 4096, 8192, 16384, 32768}) {
      const Measured m = Measure(*cache, seq_len);
      std::printf("%6.0f  %7lld  %7.2f%%  %5.2f%%  %3lld\n",
                  m.mean,
                  static_cast<long long>(seq_len),
                  100 * m.overlong,
                  100 * m.waste,
                  static_cast<long long>(m.cut));
    }
  }
  return 0;
}
