// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/dataset/batcher.h"
#include "tests/support/cache_builder.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using testing::BuildCache;
using ::testing::ElementsAre;
using testing::Fixture;
using ::testing::IsEmpty;
using testing::TempDir;
using testing::TestSample;

std::vector<MicroBatch> Eval(
    const TokenCache& cache, int64_t seq_len, int64_t max_rows, int world_size = 1, int rank = 0) {
  auto batches = EvalBatches(cache, seq_len, max_rows, world_size, rank);
  EXPECT_TRUE(batches.ok()) << batches.status().ToString();
  return std::move(batches).value();
}

TEST(EvalBatches, CoverEverySampleOnceWholeAndAlone) {
  const TempDir dir;
  const auto samples = testing::ReadSamples(Fixture("train/dense/data.jsonl"));
  const auto cache = BuildCache(dir.File("key"), {{.kind = SourceKind::kEval, .files = {samples}}});
  const auto expected = testing::ReadJsonLines(Fixture("train/dense/expected_eval.token.json"))[0];
  for (int world = 1; world <= 3; ++world) {
    int64_t loss_tokens = 0;
    size_t segments = 0;
    for (int rank = 0; rank < world; ++rank) {
      for (const MicroBatch& batch : Eval(*cache, 64, 100, world, rank)) {
        EXPECT_LE(batch.x.size(), 100u);
        loss_tokens += batch.loss_tokens;
        segments += batch.pack.size();
        EXPECT_EQ(std::accumulate(batch.row_weight.begin(), batch.row_weight.end(), 0.0),
                  double(batch.loss_tokens));
      }
    }
    EXPECT_EQ(loss_tokens, expected["loss_tokens"].get<int64_t>()) << world;
    EXPECT_EQ(segments, samples.size());
  }
}

TEST(EvalBatches, SplitOverlongSamplesAndLeaveOutWhatCarriesNoLoss) {
  const TempDir dir;
  const TestSample sample = {.tokens = {1, 2, 3, 4, 5, 6, 7, 8}, .mask = {1, 0, 0, 0, 0, 0, 1, 1}};
  const TestSample masked = {.tokens = {1, 2, 3}, .mask = {1, 0, 0}};
  const auto cache = BuildCache(
      dir.File("key"), {{.kind = SourceKind::kEval, .files = {{sample, masked, {.tokens = {}}}}}});
  const auto batches = Eval(*cache, 3, 2);
  ASSERT_EQ(batches.size(), 2u) << "rows 3 to 5 carry a loss token, row 6 another";
  EXPECT_THAT(batches[0].x, ElementsAre(4, 5, 6)) << "longer than max_rows: a chunk of its own";
  EXPECT_THAT(batches[0].row_weight, ElementsAre(0, 0, 1));
  EXPECT_THAT(batches[1].y, ElementsAre(8));
}

TEST(EvalBatches, LeaveTrainingSourcesOut) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {{.files = {{{.tokens = {1, 2, 3}}}}}});
  EXPECT_THAT(Eval(*cache, 8, 8), IsEmpty());
}

TEST(EvalBatches, RefuseBadArguments) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), {});
  EXPECT_EQ(EvalBatches(*cache, 0, 8, 1, 0).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(EvalBatches(*cache, 8, 8, 2, 2).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace mft
