// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/whole_packer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/cache_builder.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using testing::BuildCache;
using testing::TempDir;
using testing::TestSample;
using testing::TestSource;

TestSample SampleOf(int64_t rows) {
  return {.tokens = std::vector<int32_t>(rows + 1, 7)};
}

// `count` samples of 1 to `longest` rows; one in `masked_every` carries no loss (0: none).
TestSource RandomSource(int count, int64_t longest, int masked_every, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TestSample> samples;
  for (int i = 0; i < count; ++i) {
    samples.push_back(SampleOf(1 + static_cast<int64_t>(random() % longest)));
    if (masked_every > 0 && random() % masked_every == 0) {
      samples.back().mask.assign(samples.back().tokens.size(), 0);
    }
  }
  return {.files = {samples}};
}

std::vector<Pack> Take(PackStream& stream, size_t count) {
  std::vector<Pack> packs;
  for (size_t i = 0; i < count; ++i) {
    auto pack = stream.Next();
    EXPECT_TRUE(pack.ok()) << pack.status().ToString();
    packs.push_back(std::move(pack).value());
  }
  return packs;
}

// Each trainable sample whole, as often as the others give or take `slack` times.
void ExpectWholeAndEven(const TokenCache& cache,
                        const std::vector<Pack>& packs,
                        int64_t seq_len,
                        int slack) {
  std::map<int64_t, int> times;
  for (const Pack& pack : packs) {
    int64_t rows = 0;
    for (const Slice& slice : pack.slices) {
      const SampleInfo info = cache.info(slice.source, slice.sample);
      ASSERT_GT(slice.loss_tokens, 0);
      ASSERT_EQ(slice.loss_tokens, info.loss_tokens);
      ASSERT_EQ(slice.row, 0);
      ASSERT_EQ(slice.rows, info.length - 1) << "sample " << slice.sample << " was cut";
      rows += slice.rows;
      ++times[slice.sample];
    }
    ASSERT_EQ(rows, pack.rows);
    ASSERT_LE(rows, seq_len);
    ASSERT_GT(rows, 0);
  }
  int fewest = 1 << 30;
  int most = 0;
  for (int64_t i = 0; i < cache.sources()[0].samples; ++i) {
    if (cache.info(0, i).loss_tokens > 0) {
      fewest = std::min(fewest, times[i]);
      most = std::max(most, times[i]);
    } else {
      ASSERT_EQ(times.count(i), 0u) << "sample " << i << " has no loss";
    }
  }
  EXPECT_LE(most - fewest, slack);
}

TEST(WholeSource, NeverCutsASampleThatFits) {
  for (const bool shuffle : {true, false}) {
    for (uint32_t seed = 1; seed <= 5; ++seed) {
      const TempDir dir;
      const auto cache = BuildCache(dir.File("key"), {RandomSource(300, 64, 7, seed)});
      WholeSource source(*cache, {.seed = seed, .seq_len = 64, .shuffle = shuffle});
      const auto packs = Take(source, 700);
      ExpectWholeAndEven(*cache, packs, 64, 2);
    }
  }
}

TEST(WholeSource, SeesEverySampleOfAnEpochBeforeTheNextEpochOpensAPack) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {RandomSource(40, 30, 0, 3)});
  int64_t rows = 0;
  for (int64_t i = 0; i < 40; ++i) {
    rows += cache->info(0, i).length - 1;
  }
  WholeSource source(*cache, {.seed = 1, .seq_len = 50});
  // The packs that the first epoch opens: barely more than its rows need.
  const auto packs = Take(source, static_cast<size_t>(std::ceil(1.1 * double(rows) / 50)));
  std::set<int64_t> seen;
  for (const Pack& pack : packs) {
    for (const Slice& slice : pack.slices) {
      seen.insert(slice.sample);
    }
  }
  EXPECT_EQ(seen.size(), 40u);
}

TEST(WholeSource, FillsPacksOfATinySourceWithSeveralEpochs) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {{.files = {{SampleOf(30), SampleOf(21)}}}});
  WholeSource source(*cache, {.seed = 1, .seq_len = 1000});
  for (const Pack& pack : Take(source, 20)) {
    EXPECT_GT(pack.rows, 970);
  }
}

TEST(WholeSource, SplitsOverlongSamplesAtSeqLenWithTheirMask) {
  const TempDir dir;
  // 25 rows: [0, 10) without loss, [10, 20) with one, [20, 25) with five.
  TestSample sample = SampleOf(25);
  sample.mask.assign(26, 0);
  std::fill(sample.mask.begin() + 20, sample.mask.end(), 1);
  const auto cache = BuildCache(dir.File("key"), {{.files = {{sample}}}});
  WholeSource source(*cache, {.seq_len = 10, .shuffle = false});
  const auto packs = Take(source, 2);
  ASSERT_EQ(packs[0].slices.size(), 1u);
  EXPECT_EQ(packs[0].slices[0].row, 10);
  EXPECT_EQ(packs[0].slices[0].rows, 10);
  EXPECT_EQ(packs[0].loss_tokens, 1);
  EXPECT_EQ(packs[1].slices[0].row, 20);
  EXPECT_EQ(packs[1].slices[0].rows, 5);
  EXPECT_EQ(packs[1].loss_tokens, 5);
}

TEST(WholeSource, KeepsFileOrderWithoutShuffling) {
  const TempDir dir;
  const auto cache = BuildCache(
      dir.File("key"), {{.files = {{SampleOf(6), SampleOf(3), SampleOf(4)}, {SampleOf(9)}}}});
  WholeSource source(*cache, {.seq_len = 10, .shuffle = false});
  std::vector<std::vector<int64_t>> samples;
  for (const Pack& pack : Take(source, 4)) {
    samples.emplace_back();
    for (const Slice& slice : pack.slices) {
      samples.back().push_back(slice.sample);
    }
  }
  EXPECT_EQ(samples, (std::vector<std::vector<int64_t>>{{0, 1}, {2}, {3}, {0, 1}}));
}

TEST(WholeSource, ShufflesDifferentlyPerSeedAndEpoch) {
  const TempDir dir;
  const auto cache =
      BuildCache(dir.File("key"), {{.files = {std::vector<TestSample>(64, SampleOf(10))}}});
  const auto order = [&](int64_t seed) {
    WholeSource source(*cache, {.seed = seed, .seq_len = 10});
    std::vector<int64_t> samples;
    for (const Pack& pack : Take(source, 128)) {
      samples.push_back(pack.slices[0].sample);
    }
    return samples;
  };
  const auto one = order(1);
  EXPECT_EQ(one, order(1));
  EXPECT_NE(one, order(2));
  EXPECT_NE(std::vector(one.begin(), one.begin() + 64), std::vector(one.begin() + 64, one.end()));
  EXPECT_EQ(std::set(one.begin(), one.begin() + 64).size(), 64u) << "first epoch";
  EXPECT_EQ(std::set(one.begin() + 64, one.end()).size(), 64u) << "second epoch";
}

TEST(WholeSource, DoesNotSortALargeSourceByLength) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {RandomSource(6000, 100, 0, 5)});
  WholeSource source(*cache, {.seed = 1, .seq_len = 100});
  const auto packs = Take(source, 1000);
  double first = 0;
  double second = 0;
  for (size_t i = 0; i < packs.size(); ++i) {
    (i < 500 ? first : second) += double(packs[i].slices.size()) / 500;
  }
  EXPECT_NEAR(first, second, 0.25) << "samples a pack in the first and second half of a window";
}

// Log-normal lengths of mean 900, sigma 1, as in numerics.md.
double Waste(int64_t seq_len) {
  std::mt19937 random(11);
  std::normal_distribution<double> normal(std::log(900) - 0.5, 1.0);
  std::vector<TestSample> samples;
  for (int i = 0; i < 5000; ++i) {
    const auto rows = static_cast<int64_t>(std::exp(normal(random)));
    samples.push_back(SampleOf(std::clamp<int64_t>(rows, 1, seq_len)));
  }
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {{.files = {samples}}});
  WholeSource source(*cache, {.seed = 1, .seq_len = seq_len});
  int64_t rows = 0;
  const size_t count = static_cast<size_t>(3 * 4096 * 900 / seq_len);  // three windows
  for (const Pack& pack : Take(source, count)) {
    rows += pack.rows;
  }
  return 1.0 - double(rows) / double(count * seq_len);
}

TEST(WholeSource, WastesLessThanHalfAPercentAtEightThousand) {
  EXPECT_LT(Waste(8192), 0.005);
}

TEST(WholeSource, WastesLessThanOnePercentAtThirtyTwoThousand) {
  EXPECT_LT(Waste(32768), 0.01);
}

TEST(WholeSequence, GivesEachSourceItsShareOfTheTokens) {
  const TempDir dir;
  const auto cache = BuildCache(
      dir.File("key"),
      {RandomSource(100, 60, 0, 1), RandomSource(9, 60, 0, 2), RandomSource(400, 12, 0, 3)});
  const std::vector<double> weights = {6, 3, 1};
  WholeSequence sequence(*cache, 4, 64, {{0, 6, true}, {1, 3, false}, {2, 1, true}});
  std::map<uint32_t, int64_t> rows;
  int64_t total = 0;
  int64_t number = 0;
  for (const Pack& pack : Take(sequence, 900)) {
    EXPECT_EQ(pack.number, number++);
    rows[pack.slices.front().source] += pack.rows;
    total += pack.rows;
    for (const Slice& slice : pack.slices) {
      ASSERT_EQ(slice.source, pack.slices.front().source) << "a pack never mixes sources";
    }
    for (uint32_t i = 0; i < 3; ++i) {
      ASSERT_NEAR(double(rows[i]), weights[i] / 10 * double(total), 128) << "after " << number;
    }
  }
}

}  // namespace
}  // namespace mft
