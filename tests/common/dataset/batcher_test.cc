// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/batcher.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/dataset/token_cache_format.h"
#include "tests/support/cache_builder.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using testing::BuildCache;
using ::testing::HasSubstr;
using testing::TempDir;
using testing::TestSample;
using testing::TestSource;

// Samples with ids of their own (so that rows can be told apart) and prompts that carry no loss.
TestSource RandomSource(int count, uint32_t seed, SourceKind kind = SourceKind::kInstruct) {
  std::mt19937 random(seed);
  TestSource source = {.kind = kind, .files = {{}}};
  for (int i = 0; i < count; ++i) {
    TestSample sample;
    const size_t length = 2 + random() % 40;
    for (size_t t = 0; t < length; ++t) {
      sample.tokens.push_back(static_cast<int32_t>(random() % 30000));
      sample.mask.push_back(t * 2 > length);
    }
    source.files[0].push_back(sample);
  }
  return source;
}

std::unique_ptr<Batcher> Make(const TokenCache& cache, const BatcherOptions& options) {
  auto batcher = Batcher::Create(cache, options);
  EXPECT_TRUE(batcher.ok()) << batcher.status().ToString();
  return std::move(batcher).value();
}

// (x, y, mask) of every pack of the microbatch, by pack number.
using PackRows = std::map<int64_t, std::vector<std::array<int32_t, 3>>>;
void Collect(const MicroBatch& batch, PackRows& packs) {
  ASSERT_EQ(batch.cu_seqlens.size(), batch.pack.size() + 1);
  for (size_t s = 0; s < batch.pack.size(); ++s) {
    auto& rows = packs[batch.pack[s]];
    ASSERT_EQ(static_cast<int32_t>(rows.size()), batch.pack_row[s]);
    for (int32_t r = batch.cu_seqlens[s]; r < batch.cu_seqlens[s + 1]; ++r) {
      rows.push_back({batch.x[r], batch.y[r], batch.mask[r]});
    }
  }
}

class BatcherTest : public ::testing::Test {
 protected:
  TempDir dir_;
  std::unique_ptr<TokenCache> cache_ =
      BuildCache(dir_.File("key"), {RandomSource(150, 1, SourceKind::kText), RandomSource(60, 2)});
};

TEST_F(BatcherTest, StepsAreTheSameOnOneTwoThreeAndEightRanks) {
  std::vector<std::vector<PackRows>> runs;
  std::vector<std::vector<int64_t>> loss_tokens;
  for (const auto& [ranks, batch_size, micro] : std::vector<std::array<int, 3>>{
           {1, 1, 24}, {1, 24, 1}, {2, 1, 12}, {3, 2, 4}, {3, 1, 8}, {8, 1, 3}, {8, 3, 1}}) {
    std::vector<PackRows> steps(4);
    std::vector<int64_t> losses(4);
    for (int rank = 0; rank < ranks; ++rank) {
      auto batcher = Make(*cache_,
                          {.seed = 3,
                           .seq_len = 64,
                           .batch_size = batch_size,
                           .num_microbatches = micro,
                           .world_size = ranks,
                           .rank = rank});
      for (int step = 1; step <= 4; ++step) {
        const auto batch = batcher->Step(step);
        ASSERT_TRUE(batch.ok());
        ASSERT_EQ(batch->micro.size(), static_cast<size_t>(micro));
        for (const MicroBatch& microbatch : batch->micro) {
          Collect(microbatch, steps[step - 1]);
        }
        losses[step - 1] = batch->loss_tokens;
      }
    }
    for (size_t step = 0; step < 4; ++step) {
      ASSERT_EQ(steps[step].size(), 24u);
      EXPECT_EQ(steps[step].begin()->first, static_cast<int64_t>(step * 24));
    }
    runs.push_back(steps);
    loss_tokens.push_back(losses);
  }
  for (size_t i = 1; i < runs.size(); ++i) {
    EXPECT_EQ(runs[i], runs[0]) << i;
    EXPECT_EQ(loss_tokens[i], loss_tokens[0]) << i;
  }
}

// The rows of each segment, by pack number and place in the pack.
using Segments = std::map<std::pair<int64_t, int32_t>, std::vector<int32_t>>;

Segments SegmentsOfRun(const TokenCache& cache, int ranks, int64_t steps) {
  Segments segments;
  for (int rank = 0; rank < ranks; ++rank) {
    auto batcher = Make(cache,
                        {.seed = 5,
                         .seq_len = 64,
                         .num_microbatches = 24 / ranks,
                         .world_size = ranks,
                         .rank = rank});
    for (int64_t step = 1; step <= steps; ++step) {
      const auto batch = batcher->Step(step);
      EXPECT_TRUE(batch.ok());
      for (const MicroBatch& micro : batch->micro) {
        for (size_t s = 0; s < micro.pack.size(); ++s) {
          const auto rows = std::vector(micro.x.begin() + micro.cu_seqlens[s],
                                        micro.x.begin() + micro.cu_seqlens[s + 1]);
          EXPECT_TRUE(segments.emplace(std::pair(micro.pack[s], micro.pack_row[s]), rows).second);
        }
      }
    }
  }
  return segments;
}

TEST(Batcher, AnyNumberOfRanksSeesTheSameSequenceOfWholeSamplesInAnEpoch) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {RandomSource(400, 3)});
  int64_t rows = 0;
  std::map<std::vector<int32_t>, int> times;  // of each sample that carries loss
  for (int64_t i = 0; i < 400; ++i) {
    const auto tokens = cache->sample(0, i)->tokens;
    if (cache->info(0, i).loss_tokens > 0) {
      rows += static_cast<int64_t>(tokens.size()) - 1;
      times[std::vector(tokens.begin(), tokens.end() - 1)] = 0;
    }
  }
  const int64_t steps = rows / (24 * 64) + 1;  // one epoch, rounded up
  const Segments alone = SegmentsOfRun(*cache, 1, steps);
  for (const auto& [place, segment] : alone) {
    ASSERT_TRUE(times.contains(segment)) << "not a whole sample";
    ++times[segment];
  }
  for (const auto& [sample, count] : times) {
    EXPECT_GE(count, 1);
    EXPECT_LE(count, 2) << "the next epoch fills the packs of this one";
  }
  for (const int ranks : {2, 3, 8}) {
    EXPECT_EQ(SegmentsOfRun(*cache, ranks, steps), alone) << ranks << " ranks";
  }
}

void ExpectEqual(const StepBatch& a, const StepBatch& b) {
  EXPECT_EQ(a.loss_tokens, b.loss_tokens);
  EXPECT_EQ(a.tokens, b.tokens);
  ASSERT_EQ(a.micro.size(), b.micro.size());
  for (size_t i = 0; i < a.micro.size(); ++i) {
    EXPECT_EQ(a.micro[i].x, b.micro[i].x);
    EXPECT_EQ(a.micro[i].y, b.micro[i].y);
    EXPECT_EQ(a.micro[i].row_weight, b.micro[i].row_weight);
    EXPECT_EQ(a.micro[i].cu_seqlens, b.micro[i].cu_seqlens);
    EXPECT_EQ(a.micro[i].pack, b.micro[i].pack);
  }
}

TEST_F(BatcherTest, ResumingAtAStepEqualsARunFromTheStart) {
  for (const std::string packing : {"whole", "reference"}) {
    const BatcherOptions options = {.seed = 8,
                                    .seq_len = 48,
                                    .batch_size = 2,
                                    .num_microbatches = 2,
                                    .world_size = 2,
                                    .rank = 1,
                                    .packing = packing,
                                    .shuffle_text = true};
    auto run = Make(*cache_, options);
    std::vector<StepBatch> steps;
    for (int step = 1; step <= 12; ++step) {
      steps.push_back(*run->Step(step));
    }
    auto resumed = Make(*cache_, options);
    ExpectEqual(*resumed->Step(9), steps[8]);
    ExpectEqual(*resumed->Step(10), steps[9]);
    ExpectEqual(*resumed->Step(3), steps[2]);  // also backwards
  }
}

// Every step, on every rank, for several seeds, packings and weights of the sources.
TEST_F(BatcherTest, ResumingAtAnyStepEqualsARunFromTheStart) {
  constexpr int kSteps = 8;
  for (const std::string packing : {"whole", "reference"}) {
    for (const uint32_t seed : {0U, 1U, 77U}) {
      for (const int ranks : {1, 3, 8}) {
        for (int rank = 0; rank < ranks; rank += ranks == 8 ? 7 : 1) {
          const BatcherOptions options = {.seed = seed,
                                          .seq_len = 40,
                                          .batch_size = 1,
                                          .num_microbatches = 2,
                                          .world_size = ranks,
                                          .rank = rank,
                                          .packing = packing,
                                          .shuffle_text = seed != 1,
                                          .shuffle_instruct = seed != 77,
                                          .weights = {1.0 + seed, 2.5}};
          auto run = Make(*cache_, options);
          for (int step = 1; step <= kSteps; ++step) {
            ExpectEqual(*Make(*cache_, options)->Step(step), *run->Step(step));
          }
        }
      }
    }
  }
}

// Every token counts the same, whichever microbatch and rank it is in.
TEST_F(BatcherTest, TokenWeightsAreTheSameOverAllRanksAndSumToOne) {
  for (const std::string packing : {"whole", "reference"}) {
    for (int step = 1; step <= 3; ++step) {
      double sum = 0;
      int64_t counted = 0;
      int64_t rows = 0;
      StepBatch batch;
      for (int rank = 0; rank < 3; ++rank) {
        batch = *Make(*cache_,
                      {.seq_len = 40,
                       .num_microbatches = 2,
                       .world_size = 3,
                       .rank = rank,
                       .packing = packing})
                     ->Step(step);
        for (const MicroBatch& micro : batch.micro) {
          rows += static_cast<int64_t>(micro.x.size());
          counted += micro.loss_tokens;
          for (size_t i = 0; i < micro.x.size(); ++i) {
            sum += micro.row_weight[i];
            ASSERT_EQ(micro.row_weight[i],
                      micro.mask[i] == 1 ? 1.0F / static_cast<float>(batch.loss_tokens) : 0.0F);
          }
        }
      }
      EXPECT_NEAR(sum, 1, 1e-5);
      EXPECT_EQ(counted, batch.loss_tokens);
      EXPECT_EQ(rows, batch.tokens);
    }
  }
}

TEST_F(BatcherTest, ReferenceWeightsGiveEachMicrobatchTheSame) {
  auto batcher = Make(*cache_,
                      {.seq_len = 40,
                       .num_microbatches = 2,
                       .world_size = 3,
                       .packing = "reference",
                       .loss_norm = "reference"});
  const StepBatch batch = *batcher->Step(1);
  for (const MicroBatch& micro : batch.micro) {
    double sum = 0;
    for (const float weight : micro.row_weight) {
      sum += weight;
    }
    EXPECT_NEAR(sum, 1.0 / 6, 1e-6);
  }
}

TEST_F(BatcherTest, OptionsOverrideTheWeightsOfTheCache) {
  auto batcher = Make(*cache_, {.seq_len = 64, .num_microbatches = 50, .weights = {9, 1}});
  int64_t text = 0;
  const StepBatch batch = *batcher->Step(1);
  std::map<int32_t, int> first_tokens;
  for (const MicroBatch& micro : batch.micro) {
    for (int64_t i = 0; i < cache_->sources()[0].samples; ++i) {
      text += cache_->sample(0, i)->tokens[0] == micro.x[0] &&
              cache_->sample(0, i)->tokens[1] == micro.y[0];
    }
  }
  EXPECT_NEAR(double(text), 45, 2);
}

TEST_F(BatcherTest, OneLongDocumentIsBalancedByManyShortOnes) {
  // Packs of 32768 rows: 4 of one document, 4 of 64 documents each. Attention makes the former
  // dearer.
  TestSource source = {.files = {{}}};
  for (int i = 0; i < 4; ++i) {
    source.files[0].push_back({.tokens = std::vector<int32_t>(32769, 1)});
    for (int j = 0; j < 64; ++j) {
      source.files[0].push_back({.tokens = std::vector<int32_t>(513, 2)});
    }
  }
  const auto cache = BuildCache(dir_.File("long"), {source});
  for (int rank = 0; rank < 2; ++rank) {
    const StepBatch batch = *Make(*cache,
                                  {.seq_len = 32768,
                                   .num_microbatches = 4,
                                   .world_size = 2,
                                   .rank = rank,
                                   .shuffle_instruct = false})
                                 ->Step(1);
    const auto whole = std::count_if(batch.micro.begin(),
                                     batch.micro.end(),
                                     [](const MicroBatch& m) { return m.pack.size() == 1; });
    EXPECT_EQ(whole, 2) << "rank " << rank;
  }
}

TEST(Batcher, RefusesASourceWithoutTrainableTokens) {
  const TempDir dir;
  TestSource masked = {.files = {{{.tokens = {1, 5, 2}, .mask = {1, 0, 0}}}}};
  const auto cache = BuildCache(dir.File("key"), {{.files = {{{.tokens = {1, 5, 2}}}}}, masked});
  for (const std::string packing : {"whole", "reference"}) {
    const Status status = Batcher::Create(*cache, {.seq_len = 8, .packing = packing}).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_EQ(status.reason(), "NO_TRAINABLE_TOKENS");
    EXPECT_THAT(status.message(), HasSubstr("source1"));
  }
}

TEST(Batcher, RefusesAReferenceShareWithoutTrainableTokens) {
  const TempDir dir;
  const auto cache =
      BuildCache(dir.File("key"), {{.files = {{{.tokens = {1, 5, 2}}, {.tokens = {1, 6, 2}}}}}});
  const BatcherOptions options = {.seq_len = 8, .world_size = 3, .packing = "reference"};
  EXPECT_THAT(Batcher::Create(*cache, options).status().message(), HasSubstr("rank 2 of 3"));
  EXPECT_TRUE(Batcher::Create(*cache, {.seq_len = 8, .world_size = 3}).ok()) << "whole";
}

TEST(Batcher, RefusesDataWithoutATrainingSource) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {RandomSource(5, 1, SourceKind::kEval)});
  EXPECT_EQ(Batcher::Create(*cache, {.seq_len = 8}).status().reason(), "NO_TRAINABLE_TOKENS");
}

TEST(Batcher, RefusesOptionsOutOfRange) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {RandomSource(5, 1)});
  const std::vector<BatcherOptions> wrong = {
      {.seq_len = 0},
      {.seq_len = 8, .batch_size = 0},
      {.seq_len = 8, .num_microbatches = 0},
      {.seq_len = 8, .world_size = 2, .rank = 2},
      {.seq_len = 8, .packing = "half"},
      {.seq_len = 8, .loss_norm = "sum"},
      {.seq_len = 128'000, .batch_size = 1 << 20},
      {.seq_len = 8, .batch_size = 1 << 20, .num_microbatches = 1 << 20, .world_size = 1024},
      {.seed = int64_t{1} << 32, .seq_len = 8, .packing = "reference"},
      {.seq_len = 8, .weights = {1, 2}},
      {.seq_len = 8, .weights = {-1}},
  };
  for (size_t i = 0; i < wrong.size(); ++i) {
    EXPECT_EQ(Batcher::Create(*cache, wrong[i]).status().code(), Code::kInvalidArgument) << i;
  }
}

// Changes data bytes of a published cache, and all checksums with them: only who uses the sample
// can tell.
std::unique_ptr<TokenCache> Forge(const TempDir& dir,
                                  const std::function<void(std::string& sample_bytes)>& change) {
  BuildCache(dir.File("key"), {{.files = {{{.tokens = {1, 5, 6, 2}, .mask = {0, 0, 1, 1}}}}}}, 10);
  std::string bytes = *ReadFile(dir.File("key/tokens.mft"));
  std::string sample = bytes.substr(sizeof(token_cache_format::Header), 20);
  change(sample);
  bytes.replace(sizeof(token_cache_format::Header), 20, sample);
  testing::SealCache(bytes);
  dir.Write("key/tokens.mft", bytes);
  return std::move(TokenCache::Open(dir.File("key"))).value();
}

Code CodeOfSteps(const TokenCache& cache, int64_t seq_len, const std::string& packing) {
  auto batcher = Make(cache, {.seq_len = seq_len, .packing = packing});
  Code code = Code::kOk;
  for (int step = 1; step <= 3 && code == Code::kOk; ++step) {
    code = batcher->Step(step).status().code();
  }
  return code;
}

TEST(Batcher, ForgedSamplesAreDataLossInEveryPacking) {
  const std::vector<std::function<void(std::string&)>> changes = {
      [](std::string& s) { s[4] = 10; },                         // id beyond the vocabulary
      [](std::string& s) { s[7] = '\x80'; },                     // negative id
      [](std::string& s) { std::memset(s.data() + 16, 0, 4); },  // no loss at all
      [](std::string& s) { s[18] = 2; },                         // no mask byte
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    const TempDir dir;
    const auto cache = Forge(dir, changes[i]);
    for (const int64_t seq_len : {2, 8}) {
      EXPECT_EQ(CodeOfSteps(*cache, seq_len, "whole"), Code::kDataLoss) << i << ' ' << seq_len;
      EXPECT_EQ(CodeOfSteps(*cache, seq_len, "reference"), Code::kDataLoss) << i << ' ' << seq_len;
    }
  }
}

TEST(Batcher, AMaskWithMoreLossThanTheIndexCountsIsDataLoss) {
  const TempDir dir;
  const auto cache = Forge(dir, [](std::string& s) { s[17] = 1; });
  EXPECT_EQ(CodeOfSteps(*cache, 8, "whole"), Code::kDataLoss);
}

TEST(BatcherOptionsFor, TakesWeightsInTheOrderOfTheCache) {
  JobSpec spec;
  spec.seed = 4;
  spec.data.data = "a.jsonl:2";
  spec.data.instruct_data = "b.jsonl:3,c.jsonl";
  spec.mftd.packing = "reference";
  const auto options = BatcherOptionsFor(spec, 4, 2);
  ASSERT_TRUE(options.ok());
  EXPECT_THAT(options->weights, ::testing::ElementsAre(2, 3, 1));
  EXPECT_EQ(options->packing, "reference");
  EXPECT_EQ(options->world_size, 4);
  EXPECT_EQ(options->rank, 2);
  EXPECT_EQ(options->seed, 4);
}

}  // namespace
}  // namespace mft
